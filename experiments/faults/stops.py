"""A run is stopped at a change of a file, its successor ends, and the run wakes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from experiments.faults import shim
from experiments.faults.child import Child, in_child
from experiments.faults.shim import Fault
from experiments.faults.stage import Choice, Stage, Tally, stage_with_work

CHANGED = ("f0.jsonl", "new0.jsonl", "new1.jsonl", "new3.jsonl")


def stops(folder: Path, choice: Choice, changed: Sequence[str] = ()) -> Tally:
    """Stop a run; its successor finds other content in the ``changed`` files, or does the same."""
    stage, tally = stage_with_work(folder), Tally()
    for change in choice.of(stage.n_changes(Fault.STOP, stage.run), tally):
        stage.put_back()
        sleeper = _stopped_run(stage, change)
        if sleeper is None:
            tally.counts["ended before the change"] += 1
            continue
        for name in changed:
            stage.world.write(name)
        where = f"stop at change {change}"
        tally.expect(f"{where}, the successor", in_child(stage.run_and_check))
        sleeper.wake()
        tally.injected(sleeper.ending())
        if not tally.expect(f"{where}, after the wake", in_child(stage.check)):
            healed = not in_child(stage.run_and_check).status
            tally.counts["healed by the next run"] += healed
        else:
            tally.expect(f"{where}, the next run", in_child(stage.run_and_check))
    return tally


def _stopped_run(stage: Stage, change: int) -> Child | None:
    """A run that stopped at a change; None when it ended without reaching it."""

    def stopped() -> None:
        shim.arm(stage.lake, Fault.STOP, change)
        stage.run()

    child = Child(stopped)
    if child.wait_for_stop():
        return child
    child.ending()
    return None
