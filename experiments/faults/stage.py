"""What every experiment needs: a lake with work to do, a run in this process, a tally."""

from __future__ import annotations

import copy
import random
import shutil
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from embedding_core.lake import lock
from embedding_core.lake.lock import Timing
from embedding_core.recipe import Recipe, Resources
from embedding_core.runs.embed.commit_stage import prepare
from embedding_core.runs.embed.execution import InProcess
from embedding_core.runs.embed.finish_stage import RunReport, RunTally, finish
from embedding_core.runs.embed.planning import is_outdated, plan
from embedding_core.runs.embed.scheduler import run_plan
from embedding_core.runs.job import Job, locked_for
from embedding_core.runs.serving import following
from embedding_core.runs.space.release import index_is_due, index_space
from experiments.faults import shim
from experiments.faults.child import Ending, in_child
from experiments.faults.shim import Fault
from experiments.faults.world import World
from tests.driver import recipe_for

RESOURCES = Resources(unit_bytes=1, units_per_commit=2)
"""A file per unit and two per commit: a small run with many commits."""
LOCK_TIMING = Timing(beat=60.0, expiry=0.3, poll=0.02)
"""A run that stopped is taken for dead soon. No beat comes in between: the same run makes the
same changes each time."""
LOCK_WAIT_SECONDS = 60.0


class Wrong(AssertionError):
    """What the oracle found."""


@dataclass(slots=True)
class Tally:
    """What came of an experiment's injections."""

    possible: int = 0
    """Injections that there could be; all are made unless fewer are asked for."""
    injections: int = 0
    violations: list[str] = field(default_factory=list)
    endings: Counter[str] = field(default_factory=Counter)
    """How the runs that were hit ended."""
    counts: Counter[str] = field(default_factory=Counter)
    """What else was counted."""

    def injected(self, ending: Ending) -> None:
        """Count an injection, and how the run that it hit ended."""
        self.injections += 1
        self.endings[ending.kind] += 1

    def expect(self, where: str, ending: Ending) -> bool:
        """Whether a check after an injection passed; note a violation when it did not."""
        if ending.status:
            self.violations.append(f"{where}: {ending.error or ending.kind}")
            print(f"VIOLATION {self.violations[-1]}", flush=True)
        return not ending.status


@dataclass(frozen=True, slots=True)
class Choice:
    """Which of the possible injections are made."""

    most: int | None
    """Of each kind; None: all."""
    seed: int

    def of(self, n_possible: int, tally: Tally) -> list[int]:
        """Numbers from 1 to ``n_possible`` in order, drawn when there are more than ``most``."""
        tally.possible += n_possible
        numbers = range(1, n_possible + 1)
        if self.most is None or self.most >= n_possible:
            return list(numbers)
        return sorted(random.Random(self.seed).sample(numbers, self.most))


class Stage:
    """A lake, its source and the world, which are put back before each injection."""

    def __init__(self, folder: Path, seed: int, **changes: Any) -> None:
        self._folder, self._saved_folder = folder / "now", folder / "saved"
        self.world = World(self._folder / "src", seed)
        self.recipe = recipe_for(
            self._folder,
            chunk={"max_tokens": 16},
            max_rejected_share=1.0,
            max_removed_share=1.0,
            **changes,
        )
        self._saved_world = self.world

    @property
    def lake(self) -> Path:
        """The folder of the lake."""
        return self._folder / "lake"

    def prepare(self, action: Callable[[], Any]) -> Any:
        """Do an action in a child, which must succeed; what it returned."""
        ending = in_child(action)
        if ending.status:
            raise RuntimeError(f"the experiment could not be set up: {ending.error}")
        return ending.value

    def save(self) -> None:
        """Keep everything as it is now."""
        shutil.copytree(self._folder, self._saved_folder)
        self._saved_world = copy.deepcopy(self.world)

    def put_back(self) -> None:
        """Make everything as it was when it was saved."""
        shutil.rmtree(self._folder)
        shutil.copytree(self._saved_folder, self._folder)
        self.world = copy.deepcopy(self._saved_world)

    def n_changes(self, fault: Fault, action: Callable[[], Any]) -> int:
        """Changes of files that the action makes to what was saved."""

        def counted() -> int:
            shim.arm(self.lake, fault)
            action()
            return shim.count()

        self.put_back()
        return int(self.prepare(counted))

    def run(self) -> None:
        """Do a run of the recipe; raises ``Wrong`` when it ends as failed."""
        report = run(self.recipe)
        if report.outcome != "done":
            why = (*report.failures, *report.verification.problems)
            raise Wrong(f"the run ended as {report.outcome}: {why}")

    def check(self) -> None:
        """Raise ``Wrong`` when the table is not what the files say."""
        raise_if(self.world.problems(self.recipe))

    def run_and_check(self) -> None:
        """Do a run; then the table is what the files say, and nothing is left to do."""
        self.run()
        self.check()
        if not plan(following(self.recipe)).is_empty:
            raise Wrong("the run left something to do")


def stage_with_work(folder: Path) -> Stage:
    """Files are in the table; then some are added, some change, and a file leaves."""
    stage = Stage(folder, seed=1)
    for number in range(6):
        stage.world.write(f"f{number}.jsonl")
    stage.prepare(stage.run_and_check)
    for number in range(6):
        stage.world.write(f"new{number}.jsonl")
    for number in (0, 1):
        stage.world.write(f"f{number}.jsonl")
    stage.world.remove("f2.jsonl")
    stage.save()
    return stage


def raise_if(problems: Iterable[str]) -> None:
    """Raise ``Wrong`` with the first problems, if there are any."""
    if listed := list(problems):
        raise Wrong(f"{len(listed)} problems: " + "; ".join(listed[:5]))


def run(recipe: Recipe) -> RunReport:
    """A run as ``EmbedRun`` does it, scheduler and lock included, without Prefect and Ray."""
    lock.TIMING = LOCK_TIMING
    started, run_id = time.perf_counter(), uuid.uuid4().hex
    recipe = following(recipe)
    planned = plan(recipe)
    if planned.is_empty:
        return finish(Job.of(planned, recipe, RESOURCES, run_id), planned, RunTally(), started)
    with locked_for(recipe, run_id, LOCK_WAIT_SECONDS) as held_lock:
        if is_outdated(planned, recipe):
            planned = plan(recipe)
        job, tally = Job.of(planned, recipe, RESOURCES, run_id), RunTally()
        prepare(job, planned)
        run_plan(job, planned, tally, InProcess(), held_lock.check)
        if index_is_due(job):
            index_space(job)
        return finish(job, planned, tally, started)
