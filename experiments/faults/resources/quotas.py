"""A run gets little of the CPU, as under a quota: it is stopped and woken all the time."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from embedding_core.lake.lock import Timing
from embedding_core.store.layout import lock_folder
from experiments.faults.child import Child, in_child
from experiments.faults.injections import Experiment, Point, Tally, numbered
from experiments.faults.kills.marks import Marks
from experiments.faults.stage import LOCK_WAIT_SECONDS, Stage, raise_if, shared_stage
from experiments.faults.world import readable

TIMING = Timing(beat=1.0, expiry=6.0, poll=0.05)
"""That of real runs, five times as fast."""
SHARES = (0.02, 0.05, 0.1, 0.25)
"""Of the time, in which the run is awake."""
PERIOD_SECONDS = (0.1, 2.0)
"""From one wake to the next; the expiry of a lock is longer."""
SECONDS_PER_TEXT = 0.05
ROUNDS = 40
BEGIN_SECONDS = 60.0


def cpu_quotas(folder: Path) -> Experiment:
    """While a run goes on so slowly, another wants its table."""
    stage, marks = shared_stage(folder), Marks()

    def inject(point: Point, tally: Tally) -> None:
        stage.put_back()
        marks.clear()
        chance = random.Random(f"{point.kind} {point.number}")
        before = _records(stage)
        slow = Child(marks.watched(partial(stage.run, TIMING), SECONDS_PER_TEXT))
        if not _becomes(lambda: _records(stage) != before):
            tally.violations.append("the run did not take its lock")
        share, period = float(point.kind), chance.uniform(*PERIOD_SECONDS)
        quota = Child(partial(_slow_down, slow.pid, share, period))
        other = Child(partial(stage.run, TIMING, chance.choice((0.0, LOCK_WAIT_SECONDS))))
        ending = slow.ending()
        quota.kill()
        quota.ending()
        tally.injected(ending)
        tally.expect("the slow run", ending)
        beside = other.ending()
        tally.counts[f"the other run: {beside.kind}"] += 1
        if beside.kind not in ("done", "Locked"):
            tally.violations.append(f"the other run: {beside.error}")
        tally.expect("the table of a run that says done", in_child(stage.check))
        tally.expect("readers", in_child(lambda: raise_if(readable(stage.recipe))))
        tally.expect("the next run", in_child(stage.run_and_check))

    return Experiment(
        injects="a run is awake for 2 to 25 % of the time only, as under a CPU quota, while "
        "another wants its table",
        must_hold="the slow run keeps its table and does everything; the other is done after it, "
        "or refused",
        stage=stage,
        points=[point for share in SHARES for point in numbered(str(share), ROUNDS)],
        inject=inject,
        is_drawn=True,
    )


def _slow_down(pid: int, share: float, period_seconds: float) -> None:
    """Let a process work for a share of each period, until this one is killed."""
    while True:
        os.kill(pid, signal.SIGSTOP)
        time.sleep((1 - share) * period_seconds)
        os.kill(pid, signal.SIGCONT)
        time.sleep(share * period_seconds)


def _records(stage: Stage) -> set[str]:
    """Names of the records of the lock of runs."""
    lake = stage.recipe.lake
    folder = Path(lock_folder(lake.uri, lake.table, "lock"))
    return {record.name for record in folder.iterdir()}


def _becomes(is_so: Callable[[], bool]) -> bool:
    """Whether something was so in time."""
    deadline = time.monotonic() + BEGIN_SECONDS
    while not (so := is_so()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return so
