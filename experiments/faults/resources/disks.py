"""The lake is on a disk that is really full, or read-only."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

from embedding_core.encoder.hashing import HashingEncoder
from embedding_core.lake.table import table_of
from embedding_core.runs.embed.planning import plan
from embedding_core.runs.maintenance import maintain
from embedding_core.runs.table_status import status
from experiments.faults.child import in_child
from experiments.faults.injections import Experiment, Point, Tally, numbered
from experiments.faults.resources import mounts
from experiments.faults.stage import Stage, raise_if, with_work
from experiments.faults.world import readable

DISK_BYTES = 16 * 2**20
PAGE_BYTES = 4_096
"""What a file takes of the disk is a multiple of it."""
FILLER = "filler"


def full_disks(folder: Path) -> Experiment:
    """Leave so many pages free that the run cannot end, fewer each time; then make room."""
    stage = _stage_on_a_disk(folder.parent / "disk")
    filler = stage.lake / FILLER

    def n_pages() -> int:
        before = _free_pages(stage.lake)
        stage.run()
        return before - _free_pages(stage.lake)

    def inject(point: Point, tally: Tally) -> None:
        stage.put_back()
        filler.write_bytes(bytes(PAGE_BYTES * (_free_pages(stage.lake) - point.number)))
        ending = in_child(stage.run)
        filler.unlink()
        tally.injected(ending)
        if ending.kind == "done":
            tally.expect("the table of a run that says done", in_child(stage.check))
        tally.expect("readers", in_child(lambda: raise_if(readable(stage.recipe))))
        tally.expect("the next run", in_child(stage.run_and_check))

    stage.put_back()
    return Experiment(
        injects=f"a disk has too few pages of {PAGE_BYTES} bytes left for a run; then it has room",
        must_hold="a run that says done is done; readers see whole files; the next run makes the "
        "table right",
        stage=stage,
        points=numbered("pages left", stage.prepare(n_pages)),
        inject=inject,
    )


def read_only_disks(folder: Path) -> Experiment:
    """Whoever reads can; whoever writes says why not, and the lake is as it was."""
    stage = _stage_on_a_disk(folder.parent / "disk")
    reads: dict[str, Callable[[], Any]] = {
        "status": partial(status, stage.recipe),
        "plan": partial(_plan, stage),
        "search": partial(_search, stage),
    }
    writes: dict[str, Callable[[], Any]] = {
        "embed": stage.run,
        "maintain": partial(_maintain, stage),
    }

    def inject(point: Point, tally: Tally) -> None:
        stage.put_back()
        before = _content(stage.lake)
        with mounts.read_only(stage.lake, DISK_BYTES):
            ending = in_child(_without_value((reads | writes)[point.kind]))
        tally.injected(ending)
        if point.kind in reads:
            tally.expect(point.kind, ending)
        elif ending.kind not in ("LakeError", "Wrong"):
            tally.violations.append(f"it ended as {ending.error or ending.kind}")
        if _content(stage.lake) != before:
            tally.violations.append("the lake is not as it was")
        tally.expect("the next run", in_child(stage.run_and_check))

    return Experiment(
        injects="the lake is on a read-only disk",
        must_hold="reading works; writing ends with an error of embedlake's and changes nothing; "
        "later the same run makes the table right",
        stage=stage,
        points=[Point(kind, 1) for kind in (*reads, *writes)],
        inject=inject,
    )


@cache
def _stage_on_a_disk(folder: Path) -> Stage:
    """A stage with a lake on a small disk in memory that only this process and its children see."""
    stage = Stage(folder, seed=1)
    mounts.begin_own()
    mounts.disk_in_memory(stage.lake, DISK_BYTES)
    return with_work(stage)


def _free_pages(folder: Path) -> int:
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize // PAGE_BYTES


def _content(folder: Path) -> dict[str, int]:
    """Sizes of the files below a folder."""
    return {str(path): path.stat().st_size for path in folder.rglob("*") if path.is_file()}


def _plan(stage: Stage) -> None:
    if plan(stage.recipe).is_empty:
        raise AssertionError("there is nothing to do")


def _search(stage: Stage) -> None:
    table = table_of(stage.recipe)
    if not table.search("w1 w2 w3", HashingEncoder(table.space()[1])):
        raise AssertionError("nothing was found")


def _maintain(stage: Stage) -> None:
    raise_if(maintain(stage.recipe).problems)


def _without_value(action: Callable[[], Any]) -> Callable[[], None]:
    def act() -> None:
        action()

    return act
