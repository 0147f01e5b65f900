"""The user: a state machine whose every step ends with a look at the table."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial, wraps
from pathlib import Path
from typing import Any, ClassVar, cast

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from embedding_core.errors import UsageError
from embedding_core.exports.exporter import KNOWN_EXPORTERS
from embedding_core.lake import lock
from embedding_core.lake.lock import Timing
from embedding_core.recipe import Resources
from experiments.faults import shim
from experiments.faults.child import Ending, in_child
from experiments.faults.shim import Fault
from experiments.faults.stage import Wrong
from experiments.machine import actions, steps
from experiments.machine.actions import FILTERS, look, refusal
from experiments.machine.editions import TEXTS, Wording, lines_of
from experiments.machine.model import Model, State
from experiments.machine.spaces import DIMS
from experiments.machine.steps import Problem, Step

TIMING = Timing(beat=60.0, expiry=0.05, poll=0.01)
"""Nobody else works on the table: a run that was killed is taken for dead at once."""
NAMES = ("a.jsonl", "b.jsonl", "c.jsonl", "d.jsonl")
LAST_EDITION, MOST_LINES = 9, 4
MOST_EDITS = 4
"""Changes of files and of the recipe in a row, before something is done about them."""
CHUNKS = (
    {"max_tokens": 16},
    {"max_tokens": 8},
    {"strategy": "none"},
    {"strategy": "sentences", "max_tokens": 8},
)
RESOURCES = {False: Resources(), True: Resources(unit_bytes=1, units_per_commit=1)}
"""A run commits all at once, or file by file."""
LAST_CHANGE = 300
"""A run makes about so many changes of files at most."""
SPACE_STEPS: Mapping[str, Callable[[Model, int], Step]] = {
    "build": steps.build,
    "promote": steps.promote,
    "roll back": lambda model, _dim: steps.roll_back(model),
    "retire": steps.retire,
    "maintain": lambda model, _dim: steps.maintain(model, is_much_later=True),
    "give an opinion": lambda model, _dim: steps.give_opinion(model),
}

FEW_UNITS = 2
"""Units that a run works on before it is killed where there is no shim, at most."""
EXAMPLES, STEPS = "examples", "steps"
"""What is counted beside the endings."""

WORDS = ("w1 w2", "e0 other", "First title")

names = st.sampled_from(NAMES)
dims = st.sampled_from(DIMS)
formats = st.sampled_from(list(KNOWN_EXPORTERS.built_in))
changes, halves = st.integers(1, LAST_CHANGE), st.booleans()
"""When a step is killed: at which change of a file, and whether before it or amid it."""


def one_of(files: Callable[[User], Mapping[str, Any]]) -> st.SearchStrategy[str]:
    """A file that there is, or was."""
    return st.runner().flatmap(lambda user: st.sampled_from(sorted(files(user))))


def counted_rule(**arguments: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], Any]:
    """A rule of a user whose steps are counted."""

    def ruled(does: Callable[..., None]) -> Any:
        @wraps(does)
        def counts_and_does(user: User, **values: Any) -> None:
            user.endings[STEPS] += 1
            does(user, **values)

        return cast(Any, rule)(**arguments)(counts_and_does)

    return ruled


class User(RuleBasedStateMachine):
    """Does a thing after the other in a folder that is empty at first."""

    folder: ClassVar[Path]
    endings: ClassVar[Counter[str]] = Counter()
    """Steps by what was done and how it ended, of all users of this process."""

    def __init__(self) -> None:
        super().__init__()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.model = Model(self.folder)
        self.model.source.mkdir(parents=True)
        self.removed: dict[str, tuple[str, ...]] = {}
        self.endings.update({EXAMPLES: 1})

    def has_work(self) -> bool:
        return bool(self.model.files) or self.has_table()

    def may_edit(self) -> bool:
        return self.model.n_edits < MOST_EDITS or not self.has_work()

    def may_edit_a_file(self) -> bool:
        return self.may_edit() and bool(self.model.files)

    def has_table(self) -> bool:
        return self.model.state.spaces is not None

    def is_settled(self) -> bool:
        return self.has_table() and self.model.run_recipe is not None

    # Files

    @initialize(edition=st.integers(0, LAST_EDITION), n_lines=st.integers(1, MOST_LINES))
    def write_first(self, edition: int, n_lines: int) -> None:
        self.endings[STEPS] += 1
        self.model.write(NAMES[0], lines_of(edition, n_lines))

    @precondition(may_edit)
    @counted_rule(
        name=names, edition=st.integers(0, LAST_EDITION), n_lines=st.integers(0, MOST_LINES)
    )
    def write(self, name: str, edition: int, n_lines: int) -> None:
        self.model.write(name, lines_of(edition, n_lines))

    @precondition(may_edit_a_file)
    @counted_rule(name=one_of(lambda user: user.model.files))
    def shrink(self, name: str) -> None:
        self.model.write(name, self.model.files[name][:-1])

    @precondition(may_edit_a_file)
    @counted_rule(name=one_of(lambda user: user.model.files))
    def delete(self, name: str) -> None:
        self.removed[name] = self.model.files[name]
        self.model.remove(name)

    @precondition(lambda self: self.may_edit() and bool(self.removed))
    @counted_rule(name=one_of(lambda user: user.removed))
    def add_again(self, name: str) -> None:
        self.model.write(name, self.removed[name])

    @precondition(may_edit_a_file)
    @counted_rule(name=one_of(lambda user: user.model.files), new_name=names)
    def rename(self, name: str, new_name: str) -> None:
        lines = self.model.files[name]
        self.model.remove(name)
        self.model.write(new_name, lines)

    @precondition(may_edit_a_file)
    @counted_rule(name=one_of(lambda user: user.model.files), new_name=names)
    def copy(self, name: str, new_name: str) -> None:
        self.model.write(new_name, self.model.files[name])

    # The recipe

    @precondition(may_edit)
    @counted_rule(text=st.sampled_from(list(TEXTS)), has_title=st.booleans())
    def edit_text(self, text: str, has_title: bool) -> None:
        self.model.edit(Wording(text, has_title, self.model.wording.columns))

    @precondition(may_edit)
    @counted_rule(year=st.sampled_from([None, "int", "string"]), has_tag=st.booleans())
    def edit_metadata(self, year: Any, has_tag: bool) -> None:
        columns = {"year": year} if year else {}
        tags = {"tag": "string"} if has_tag else {}
        wording = self.model.wording
        self.model.edit(Wording(wording.text, wording.has_title, columns | tags))

    @precondition(may_edit)
    @counted_rule(chunk=st.sampled_from(CHUNKS), reuse=st.sampled_from(["file", "table"]))
    def edit_chunks(self, chunk: dict[str, Any], reuse: str) -> None:
        self.model.edit(chunk=chunk, reuse=reuse)

    # What changes the table

    @precondition(has_work)
    @counted_rule(file_by_file=st.booleans())
    def run(self, file_by_file: bool) -> None:
        step = steps.run(self.model, RESOURCES[file_by_file])
        self.model.run_ended(step.problem is None)
        self._do("run", step)

    @precondition(has_work)
    @counted_rule(file_by_file=st.booleans(), change=changes, amid=halves)
    def kill_run(self, file_by_file: bool, change: int, amid: bool) -> None:
        execution = None if shim.is_loaded() else actions.DyingProcess(change % FEW_UNITS)
        step = steps.run(self.model, RESOURCES[file_by_file], execution)
        if self._kill("run", step, change, amid):
            self.model.run_was_killed()
        else:
            self.model.run_ended(step.problem is None)
        self._look(step.during)

    @precondition(has_table)
    @counted_rule(dim=dims)
    def build(self, dim: int) -> None:
        self._do("build", steps.build(self.model, dim))

    @precondition(has_table)
    @counted_rule(dim=dims)
    def promote(self, dim: int) -> None:
        self._do("promote", steps.promote(self.model, dim))

    @precondition(has_table)
    @counted_rule()
    def roll_back(self) -> None:
        self._do("roll back", steps.roll_back(self.model))

    @precondition(has_table)
    @counted_rule(dim=dims)
    def retire(self, dim: int) -> None:
        self._do("retire", steps.retire(self.model, dim))

    @precondition(has_table)
    @counted_rule(is_much_later=st.booleans())
    def maintain(self, is_much_later: bool) -> None:
        self._do("maintain", steps.maintain(self.model, is_much_later))

    @precondition(has_table)
    @counted_rule()
    def give_opinion(self) -> None:
        self._do("give an opinion", steps.give_opinion(self.model))

    @precondition(lambda self: self.has_table() and shim.is_loaded())
    @counted_rule(what=st.sampled_from(list(SPACE_STEPS)), dim=dims, change=changes, amid=halves)
    def kill(self, what: str, dim: int, change: int, amid: bool) -> None:
        step = SPACE_STEPS[what](self.model, dim)
        self._kill(what, step, change, amid)
        self._look(step.during)

    # What reads the table

    @precondition(is_settled)
    @counted_rule(to=formats)
    def export(self, to: str) -> None:
        self._read("export", self._export(to, "out", overwrite=True), self._export_problem())

    @precondition(lambda self: self.is_settled() and shim.is_loaded())
    @counted_rule(to=formats, change=changes, amid=halves)
    def kill_export(self, to: str, change: int, amid: bool) -> None:
        problem = self._export_problem()
        step = Step(self._export(to, "cut-off", resume=True), problem, (), ())
        self._kill("export", step, change, amid)
        self._read("export", self._export(to, "cut-off", resume=True), problem)
        shutil.rmtree(self.folder / "cut-off", ignore_errors=True)

    @precondition(has_table)
    @counted_rule(words=st.sampled_from(WORDS), where=st.sampled_from(list(FILTERS)))
    def query(self, words: str, where: str) -> None:
        self._read("query", partial(actions.query, self.model.recipe, words, where))

    @precondition(is_settled)
    @counted_rule()
    def verify(self) -> None:
        self._read("verify", partial(actions.verify, self.model.recipe))

    def _export(self, to: str, folder: str, **how: bool) -> Callable[[], None]:
        """``how``: see ``export_and_import``."""
        recipe, dim = self.model.run_recipe, self.model.spaces.serving
        assert recipe is not None
        return partial(actions.export_and_import, recipe, dim, to, self.folder / folder, **how)

    def _export_problem(self) -> Problem:
        """A table without rows has nothing to export."""
        return None if self.model.n_rows else UsageError

    # Processes

    def _do(self, what: str, step: Step) -> None:
        """Do a step, then look, in one process."""

        def done() -> Mapping[str, Any]:
            lock.TIMING = TIMING
            refusal(step.action, step.problem)
            return look(self.model, step.after)

        ending = in_child(done)
        self._expect(what, ending, step.problem)
        self._learn(step.after, ending.value)

    def _read(self, what: str, action: Callable[[], None], problem: Problem = None) -> None:
        """Do what changes nothing."""

        def done() -> None:
            lock.TIMING = TIMING
            refusal(action, problem)

        self._expect(what, in_child(done), problem)

    def _kill(self, what: str, step: Step, change: int, amid: bool) -> bool:
        """Do a step in a process that dies in it, if the step lasts long enough; whether it
        died."""

        def killed() -> None:
            lock.TIMING = TIMING
            if shim.is_loaded():
                shim.arm(self.folder, Fault.KILL_AMID if amid else Fault.KILL_BEFORE, change)
            refusal(step.action, step.problem)

        ending = in_child(killed)
        if ending.kind == "killed":
            self.endings[f"{what}: killed"] += 1
            return True
        self._expect(what, ending, step.problem)
        return False

    def _look(self, states: Sequence[State]) -> None:
        ending = in_child(lambda: look(self.model, states))
        self._expect("look", ending)
        self._learn(states, ending.value)

    def _expect(self, what: str, ending: Ending, problem: Problem = None) -> None:
        kind = problem.__name__ if problem else "done"
        self.endings[f"{what}: {ending.kind if ending.status else kind}"] += 1
        if ending.status:
            raise Wrong(f"{what}: {ending.error or ending.kind}")

    def _learn(self, states: Sequence[State], seen: Mapping[str, Any]) -> None:
        """Take over what the model cannot know."""
        self.model.state = states[seen["state"]]
        self.model.n_rows = seen["n_rows"]
        self.model.unfilled = {int(dim): rows for dim, rows in seen["unfilled"].items()}
