"""A run is killed at a change of a file, and the same run is done again."""

from __future__ import annotations

from pathlib import Path

from experiments.faults import shim
from experiments.faults.child import in_child
from experiments.faults.shim import Fault
from experiments.faults.stage import Choice, Tally, stage_with_work


def kills(folder: Path, choice: Choice) -> Tally:
    """Kill before a change, and amid it: after half of a write, after any other call."""
    stage, tally = stage_with_work(folder), Tally()
    for fault in (Fault.KILL_BEFORE, Fault.KILL_AMID):
        for change in choice.of(stage.n_changes(fault, stage.run), tally):
            stage.put_back()

            def killed(fault: Fault = fault, change: int = change) -> None:
                shim.arm(stage.lake, fault, change)
                stage.run()

            tally.injected(in_child(killed))
            where = f"{fault.name} at change {change}"
            tally.expect(f"{where}, the next run", in_child(stage.run_and_check))
    return tally
