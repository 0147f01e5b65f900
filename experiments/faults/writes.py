"""Writes fail: a single one, or all from a change on, as on a full disk."""

from __future__ import annotations

import errno
from pathlib import Path

from experiments.faults import shim
from experiments.faults.child import in_child
from experiments.faults.injections import Experiment, Point, Tally, numbered
from experiments.faults.shim import Fault
from experiments.faults.stage import raise_if, shared_stage
from experiments.faults.world import readable

FAILURES = {
    f"{fault.name} {errno.errorcode[error]}": (fault, error)
    for fault, error in (
        (Fault.FAIL_ONCE, errno.ENOSPC),
        (Fault.FAIL_ONCE, errno.EIO),
        (Fault.FAIL_FROM_THEN_ON, errno.ENOSPC),
        (Fault.FAIL_FROM_THEN_ON, errno.EROFS),
    )
}


def failed_writes(folder: Path) -> Experiment:
    """Fail one change of a file, or every change from one on."""
    stage = shared_stage(folder)

    def run_and_look() -> bool:
        stage.run()
        shim.disarm()
        return not stage.world.problems(stage.recipe)

    def inject(point: Point, tally: Tally) -> None:
        stage.put_back()
        fault, error = FAILURES[point.kind]
        ending = in_child(stage.hit(fault, point.number, run_and_look, error))
        tally.injected(ending)
        if ending.value is False:
            tally.violations.append("the run said done, and the table is wrong")
        tally.expect("readers", in_child(lambda: raise_if(readable(stage.recipe))))
        tally.expect("the next run", in_child(stage.run_and_check))

    return Experiment(
        injects="one write fails (`ENOSPC`, `EIO`), or all do from a change on (`ENOSPC`, `EROFS`)",
        must_hold="a run that says done is done; readers see whole files; the next run makes the "
        "table right",
        stage=stage,
        points=[
            point
            for kind, (fault, _) in FAILURES.items()
            for point in numbered(kind, stage.n_changes(fault, stage.run))
        ],
        inject=inject,
    )
