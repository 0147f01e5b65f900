"""What every experiment needs: a lake with work to do, and a run in this process."""

from __future__ import annotations

import copy
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from embedding_core.lake import lock
from embedding_core.lake.lock import Timing
from embedding_core.recipe import Recipe, Resources
from embedding_core.records import Plan
from embedding_core.runs.embed.commit_stage import prepare
from embedding_core.runs.embed.execution import InProcess
from embedding_core.runs.embed.finish_stage import RunReport, RunTally, finish
from embedding_core.runs.embed.planning import PlanBasis, is_outdated, plan
from embedding_core.runs.embed.scheduler import run_plan
from embedding_core.runs.job import Job, locked_for
from embedding_core.runs.space.release import index_is_due, index_space
from embedding_core.watch.spans import span
from experiments.faults import shim
from experiments.faults.child import in_child, load_modules, loaded_modules
from experiments.faults.shim import Fault
from experiments.faults.world import Content, World
from tests.driver import recipe_for

RESOURCES = Resources(unit_bytes=1, units_per_commit=2)
"""A file per unit and two per commit: a small run with many commits."""
LOCK_TIMING = Timing(beat=60.0, expiry=0.1, poll=0.02)
"""A run that stopped is taken for dead soon. No beat comes in between: the same run makes the
same changes each time."""
LOCK_WAIT_SECONDS = 60.0
MONTH_SECONDS = 30 * 86_400
"""Longer than anything is kept that nobody needs."""


class Wrong(AssertionError):
    """What the oracle found."""


class Stage:
    """A lake, its source and the world, which are put back before each injection."""

    def __init__(self, folder: Path, seed: int, **changes: Any) -> None:
        self._folder, self._saved_folder = folder / "now", folder / "saved"
        self.world = World(self._folder / "src", seed)
        self.recipe = recipe_for(
            self._folder,
            **({"chunk": {"max_tokens": 16}} | changes),
            max_rejected_share=1.0,
            max_removed_share=1.0,
        )
        self._saved_world = self.world
        self.first_files: Mapping[str, Content] = {}
        """What the files said that the saved table was made of; see ``with_work``."""
        self._n_changes: dict[tuple[bool, Callable[[], Any]], int] = {}
        self.lake.mkdir()
        lock.TIMING = LOCK_TIMING

    @property
    def lake(self) -> Path:
        """The folder of the lake."""
        return self._folder / "lake"

    @property
    def _rooms(self) -> list[Path]:
        """The folders that are put back. They stay themselves: one may be a disk of its own."""
        return [self.world.folder, self.lake]

    def prepare(self, action: Callable[[], Any]) -> Any:
        """Do an action in a child, which must succeed; what it returned.

        What the action imports is imported here too, so that later children need not.
        """

        def act() -> tuple[Any, list[str]]:
            return action(), loaded_modules()

        ending = in_child(act)
        if ending.status:
            raise RuntimeError(f"the experiment could not be set up: {ending.error}")
        value, modules = ending.value
        load_modules(modules)
        return value

    def prepare_long_ago(self, action: Callable[[], Any]) -> None:
        """Do an action as if it had been a month ago."""

        def act() -> None:
            shim.jump(-MONTH_SECONDS)
            action()

        self.prepare(act)
        then = time.time() - MONTH_SECONDS
        for path in self.lake.rglob("*"):
            os.utime(path, (then, then))

    def save(self) -> None:
        """Keep everything as it is now."""
        shutil.rmtree(self._saved_folder, ignore_errors=True)
        for room in self._rooms:
            shutil.copytree(room, self._saved_folder / room.name)
        self._saved_world = copy.deepcopy(self.world)

    def put_back(self) -> None:
        """Make everything as it was when it was saved."""
        for room in self._rooms:
            empty(room)
            shutil.copytree(self._saved_folder / room.name, room, dirs_exist_ok=True)
        self.world = copy.deepcopy(self._saved_world)

    def close(self) -> None:
        """Give back what the stage took beside its folder."""

    def n_changes(self, fault: Fault, action: Callable[[], Any]) -> int:
        """Changes of files that the action makes to what was saved."""

        def counted() -> int:
            shim.arm(self.lake, fault)
            action()
            return shim.count()

        key = (fault in shim.FAILURES, action)
        if key not in self._n_changes:
            self.put_back()
            self._n_changes[key] = int(self.prepare(counted))
        return self._n_changes[key]

    def hit(
        self, fault: Fault, change: int, action: Callable[[], Any], number: int = 0
    ) -> Callable[[], Any]:
        """The action, with a fault at a change of a file that it makes; ``number``: see
        ``shim.arm``."""

        def act() -> Any:
            shim.arm(self.lake, fault, change, number)
            return action()

        return act

    def run(self, timing: Timing | None = None, wait_seconds: float = LOCK_WAIT_SECONDS) -> None:
        """Do a run of the recipe; raises ``Wrong`` when it ends as failed."""
        report = run(self.recipe, timing, wait_seconds)
        if report.outcome != "done":
            why = (*report.failures, *report.verification.problems)
            raise Wrong(f"the run ended as {report.outcome}: {why}")

    def check(self) -> None:
        """Raise ``Wrong`` when the table is not what the files say."""
        raise_if(self.world.problems(self.recipe))

    def run_and_check(self) -> None:
        """Do a run; then the table is what the files say, and nothing is left to do."""
        self.run()
        self.check_done()

    def check_done(self) -> None:
        """Raise ``Wrong`` when the table is not what the files say, or a run would change it."""
        self.check()
        if not plan(self.recipe).is_empty:
            raise Wrong("the run left something to do")


StageT = TypeVar("StageT", bound=Stage)


def shared_stage(folder: Path) -> Stage:
    """The stage ``with_work`` that experiments of a process share, beside an experiment's folder.

    Each puts it back before an injection, and saves nothing.
    """
    return _stage_with_work(folder.parent / "shared")


@cache
def _stage_with_work(folder: Path) -> Stage:
    return with_work(Stage(folder, seed=1))


def with_work(stage: StageT) -> StageT:
    """Files are in the table; then some are added, some change, and a file leaves."""
    for number in range(6):
        stage.world.write(f"f{number}.jsonl")
    stage.prepare(stage.run_and_check)
    stage.first_files = dict(stage.world.files)
    for number in range(6):
        stage.world.write(f"new{number}.jsonl")
    for number in (0, 1):
        stage.world.write(f"f{number}.jsonl")
    stage.world.remove("f2.jsonl")
    stage.save()
    return stage


def empty(folder: Path) -> None:
    """Remove what is in a folder."""
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def raise_if(problems: Iterable[str]) -> None:
    """Raise ``Wrong`` with the first problems, if there are any."""
    if listed := list(problems):
        raise Wrong(f"{len(listed)} problems: " + "; ".join(listed[:5]))


def run(
    recipe: Recipe, timing: Timing | None = None, wait_seconds: float = LOCK_WAIT_SECONDS
) -> RunReport:
    """A run as ``EmbedRun`` does it, scheduler and lock included, without Prefect and Ray.

    ``timing``: of its lock; None: as this process's locks have it.
    """
    if timing is not None:
        lock.TIMING = timing
    started, run_id = time.perf_counter(), uuid.uuid4().hex
    with span("plan"):
        job, planned = _planned(recipe, run_id)
    if planned.is_empty:
        return finish(job, planned, RunTally(), started)
    with locked_for(recipe, run_id, wait_seconds) as held_lock:
        if is_outdated(planned, recipe):
            job, planned = _planned(recipe, run_id)
        tally = RunTally()
        prepare(job, planned)
        run_plan(job, planned, tally, InProcess(), held_lock.check)
        if index_is_due(job):
            index_space(job)
        return finish(job, planned, tally, started)


def _planned(recipe: Recipe, run_id: str) -> tuple[Job, Plan]:
    basis = PlanBasis.now(recipe)
    planned = basis.plan()
    return Job.of(planned, basis.recipe, RESOURCES, run_id), planned
