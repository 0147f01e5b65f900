"""A run is killed at a change of a file, and the same run is done again."""

from __future__ import annotations

from pathlib import Path

from experiments.faults.child import in_child
from experiments.faults.injections import Experiment, Point, Tally, numbered
from experiments.faults.shim import Fault
from experiments.faults.stage import shared_stage


def kills(folder: Path) -> Experiment:
    """Kill before a change, and amid it: after half of a write, after any other call."""
    stage = shared_stage(folder)

    def inject(point: Point, tally: Tally) -> None:
        stage.put_back()
        tally.injected(in_child(stage.hit(Fault[point.kind], point.number, stage.run)))
        tally.expect("the next run", in_child(stage.run_and_check))

    return Experiment(
        injects="a run is killed before a change of a file, or amid it (half of a write)",
        must_hold="the same run again makes the table right, and nothing is left to do",
        stage=stage,
        points=[
            point
            for fault in (Fault.KILL_BEFORE, Fault.KILL_AMID)
            for point in numbered(fault.name, stage.n_changes(fault, stage.run))
        ],
        inject=inject,
    )
