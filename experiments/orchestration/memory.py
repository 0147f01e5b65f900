"""A text exhausts the memory of the process of Ray that embeds it."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path

import psutil

from embedding_core.runs.outcome import EXIT_CODES
from experiments.faults.child import in_child
from experiments.faults.injections import Experiment, Point, Tally, numbered
from experiments.faults.stage import raise_if, with_work
from experiments.faults.world import Content, readable
from experiments.orchestration.runs import CommandRun
from experiments.orchestration.services import own_services
from experiments.orchestration.stage import ServedStage
from tests.waiting import DEADLY, GREEDY

KINDS = {"Ray's monitor": GREEDY, "the kernel": DEADLY}
"""Who kills the process, and how the name of the file begins, which its text begins with."""
RUNS = 20
UNIT_BYTES = (1, 600)
"""A file per unit, or some."""
ENDED = (EXIT_CODES["done"], EXIT_CODES["rejected"])
LONGEST_SECONDS = 900.0
"""Each try at the file costs a process that imports everything, and there are eight, or more where
its unit is halved first."""
ROOM_BYTES = 3 * 2**30
"""What the machine may take beyond what it takes now before Ray kills a process: half of what a
greedy text takes."""


def exhausted_memory(folder: Path) -> Experiment:
    """One file of many has a text that no process survives."""
    stage = _stage(folder)

    def inject(point: Point, tally: Tally) -> None:
        stage.put_back()
        stage.services.need("server", "head")
        chance = random.Random(f"{point.kind} {point.number}")
        name = f"{KINDS[point.kind]}{chance.randrange(10**6)}.jsonl"
        stage.world.reseed(point.number)
        stage.world.write(name, n_documents=chance.randint(1, 3))
        ending = CommandRun(stage, unit_bytes=chance.choice(UNIT_BYTES)).ending(LONGEST_SECONDS)
        tally.injected(ending)
        if ending.status not in ENDED:
            tally.violations.append(f"the run ended as {ending.error}")
        stage.world.files[name] = Content({}, [(None, "failed")])
        tally.expect("the other files", in_child(stage.check))
        tally.expect("readers", in_child(lambda: raise_if(readable(stage.recipe))))
        stage.world.remove(name)
        tally.expect("the next run without the file", in_child(stage.run_and_check))

    return Experiment(
        injects="a text exhausts the memory of whoever embeds it: Ray's memory monitor kills the "
        "process each time, or the kernel does",
        must_hold="the run ends, with exit code 0 or 3 for rejects; the file alone is rejected as "
        "`failed`, the others are in the table",
        stage=stage,
        points=[point for kind in KINDS for point in numbered(kind, RUNS)],
        inject=inject,
        is_drawn=True,
    )


@cache
def _stage(folder: Path) -> ServedStage:
    memory = psutil.virtual_memory()
    threshold = (memory.total - memory.available + ROOM_BYTES) / memory.total
    variables = {
        "RAY_memory_usage_threshold": f"{threshold:.3f}",
        "RAY_memory_monitor_refresh_ms": "100",
    }
    return with_work(ServedStage(folder / "stage", own_services(folder / "services", variables)))
