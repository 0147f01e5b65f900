"""The clock jumps amid a run, or maintenance runs beside it on a machine whose clock is wrong."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from experiments.faults import shim
from experiments.faults.child import Child, in_child
from experiments.faults.injections import Experiment, Point, Tally, numbered
from experiments.faults.kills.work import maintain_table
from experiments.faults.shim import Fault
from experiments.faults.stage import MONTH_SECONDS, Wrong, shared_stage

HOUR_SECONDS = 3_600
JUMPS = {
    "an hour on": HOUR_SECONDS,
    "an hour back": -HOUR_SECONDS,
    "a month on": MONTH_SECONDS,
    "a month back": -MONTH_SECONDS,
}
BESIDE = "maintenance a month ahead"


def jumps(folder: Path) -> Experiment:
    """Let the clock jump at a change of a file, or let maintenance come in whose clock is ahead."""
    stage = shared_stage(folder)

    def jump(point: Point, tally: Tally) -> None:
        ending = in_child(stage.hit(Fault.JUMP, point.number, stage.run, JUMPS[point.kind]))
        tally.injected(ending)
        tally.expect("the run", ending)

    def maintain_ahead() -> None:
        shim.jump(MONTH_SECONDS)
        try:
            maintain_table(stage)
        except Wrong as problems:
            if "clock" not in str(problems):
                raise
        else:
            raise Wrong("maintenance does not say that its clock is ahead")

    def maintain_beside(point: Point, tally: Tally) -> None:
        """A run sleeps while maintenance could take its files for those of a run that died."""
        sleeper = Child(stage.hit(Fault.STOP, point.number, stage.run))
        if not sleeper.wait_for_stop():
            sleeper.ending()
            tally.counts["ended before the change"] += 1
            return
        tally.expect("maintenance", in_child(maintain_ahead))
        sleeper.wake()
        tally.injected(sleeper.ending())

    def inject(point: Point, tally: Tally) -> None:
        stage.put_back()
        (maintain_beside if point.kind == BESIDE else jump)(point, tally)
        tally.expect("the next run", in_child(stage.run_and_check))
        tally.expect("maintenance", in_child(partial(maintain_table, stage)))
        tally.expect("the table", in_child(stage.check))

    n_changes = stage.n_changes(Fault.STOP, stage.run)
    return Experiment(
        injects="the clock jumps by an hour or a month at a change of a file; or maintenance comes "
        "in then, on a machine whose clock is a month ahead",
        must_hold="a run whose clock jumps does everything; maintenance that is ahead says so and "
        "removes nothing; the table is right after the next run and maintenance",
        stage=stage,
        points=[point for kind in (*JUMPS, BESIDE) for point in numbered(kind, n_changes)],
        inject=inject,
    )
