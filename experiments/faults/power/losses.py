"""Power is lost amid a run; then the table is opened, and the same command is done again."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from embedding_core.lake.table import table_of
from embedding_core.runs.repair import repair
from experiments.faults.child import in_child
from experiments.faults.injections import Experiment, Point, Tally, numbered
from experiments.faults.power.changes import read_changes, recorded
from experiments.faults.power.disks import Order, after_power_loss, write_to
from experiments.faults.stage import RESOURCES, Stage, empty, raise_if, with_work
from experiments.faults.world import Content, torn_files

ORDERS: dict[str, Order] = {
    "a disk with a journal": "journal",
    "a disk that keeps no order": "any order",
}
STATES = 400
"""Of each kind of disk."""
NAMED = ("DamagedManifest", "LakeError")
"""Errors that name what is damaged, and what to do."""
Versions = Mapping[str, Sequence[Content]]


def power_losses(folder: Path) -> Experiment:
    """A disk holds what a power loss amid a run may leave of the lake."""
    stage, versions = _stage(folder)
    log = folder / "changes"
    stage.put_back()
    stage.prepare(recorded(stage.run, stage.lake, log))
    changes = read_changes(log, stage.lake)

    def inject(point: Point, tally: Tally) -> None:
        stage.put_back()
        chance = random.Random(f"{point.kind} {point.number}")
        disk = after_power_loss(stage.lake, changes, chance, ORDERS[point.kind])
        empty(stage.lake)
        write_to(disk, stage.lake)
        reading = in_child(partial(_read, stage, versions))
        tally.injected(reading)
        if reading.kind == "Wrong":
            tally.violations.append(f"readers: {reading.error}")
        _heal(stage, tally)

    return Experiment(
        injects="power is lost amid a run: of what was not flushed, names are lost, or files are "
        "empty, end early or have pages of zeros; on a disk whose journal keeps the order of "
        "names, and on one that keeps none",
        must_hold="readers see whole files or an error; the same command makes the table right, "
        "or its error names what is damaged, and `verify --repair` and the same command do",
        stage=stage,
        points=[point for kind in ORDERS for point in numbered(kind, STATES)],
        inject=inject,
        is_drawn=True,
    )


def _heal(stage: Stage, tally: Tally) -> None:
    """Do the same command; where its error says so, repair and do it once more."""
    run = in_child(stage.run_and_check)
    if run.status == 0:
        tally.counts["the same command heals"] += 1
    elif run.kind not in NAMED:
        tally.violations.append(f"the next run: {run.error}")
    else:
        tally.counts["a torn manifest" if run.kind == NAMED[0] else "other damage"] += 1
        in_child(partial(_repair, stage))  # it may be that no table is left, which it says
        tally.expect("repair and the next run", in_child(stage.run_and_check))


def _repair(stage: Stage) -> None:
    repair(stage.recipe, RESOURCES, deep=True, sample_rows=1_000)


def _stage(folder: Path) -> tuple[Stage, Versions]:
    """Work to do as in ``with_work``, and every version of each file; empty: the table may lack
    it."""
    stage = with_work(Stage(folder, seed=1))
    before = stage.first_files
    names = before.keys() | stage.world.files.keys()
    return stage, {
        str(stage.world.folder / name): [
            Content({}),
            *(files[name] for files in (before, stage.world.files) if name in files),
        ]
        for name in names
    }


def _read(stage: Stage, versions: Versions) -> None:
    """Raise ``Wrong`` when a reader sees half a file, or a vector that is not its text's."""
    raise_if(torn_files(table_of(stage.recipe).open(), versions))
