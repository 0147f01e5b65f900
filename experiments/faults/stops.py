"""A run is stopped at a change of a file, its successor ends, and the run wakes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from experiments.faults.child import Child, in_child
from experiments.faults.injections import Experiment, Point, Tally, numbered
from experiments.faults.shim import Fault
from experiments.faults.stage import shared_stage

CHANGED = ("f0.jsonl", "new0.jsonl", "new1.jsonl", "new3.jsonl")


def stops(folder: Path, changed: Sequence[str] = ()) -> Experiment:
    """Stop a run; its successor finds other content in the ``changed`` files, or does the same."""
    stage = shared_stage(folder)

    def inject(point: Point, tally: Tally) -> None:
        stage.put_back()
        sleeper = Child(stage.hit(Fault.STOP, point.number, stage.run))
        if not sleeper.wait_for_stop():
            sleeper.ending()
            tally.counts["ended before the change"] += 1
            return
        for name in changed:
            stage.world.write(name)
        tally.expect("the successor", in_child(stage.run_and_check))
        sleeper.wake()
        tally.injected(sleeper.ending())
        if tally.expect("after the wake", in_child(stage.check)):
            tally.expect("the next run", in_child(stage.run_and_check))
        else:
            healed = not in_child(stage.run_and_check).status
            tally.counts["healed by the next run"] += healed

    others = "finds other files" if changed else "does the same work"
    return Experiment(
        injects=f"a run is stopped at a change of a file; its successor {others}; then it wakes",
        must_hold="the table is right after the successor, after the wake and after the next run",
        stage=stage,
        points=numbered(Fault.STOP.name, stage.n_changes(Fault.STOP, stage.run)),
        inject=inject,
    )
