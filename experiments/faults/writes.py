"""Writes fail: a single one, or all from a change on, as on a full disk."""

from __future__ import annotations

import errno
from pathlib import Path

from experiments.faults import shim
from experiments.faults.child import in_child
from experiments.faults.shim import Fault
from experiments.faults.stage import Choice, Tally, raise_if, stage_with_work
from experiments.faults.world import readable

FAILURES = (
    (Fault.FAIL_ONCE, errno.ENOSPC),
    (Fault.FAIL_ONCE, errno.EIO),
    (Fault.FAIL_FROM_THEN_ON, errno.ENOSPC),
)


def failed_writes(folder: Path, choice: Choice) -> Tally:
    """A run that says it is done is done; whatever it said, the next run makes the table right."""
    stage, tally = stage_with_work(folder), Tally()
    for fault, error in FAILURES:
        for change in choice.of(stage.n_changes(fault, stage.run), tally):
            stage.put_back()

            def hit(fault: Fault = fault, change: int = change, error: int = error) -> bool:
                shim.arm(stage.lake, fault, change, error)
                stage.run()
                shim.disarm()
                return not stage.world.problems(stage.recipe)

            ending = in_child(hit)
            tally.injected(ending)
            where = f"{errno.errorcode[error]} {fault.name} at change {change}"
            if ending.value is False:
                tally.violations.append(f"{where}: the run said done, and the table is wrong")
            tally.expect(f"{where}, readers", in_child(lambda: raise_if(readable(stage.recipe))))
            tally.expect(f"{where}, the next run", in_child(stage.run_and_check))
    return tally
