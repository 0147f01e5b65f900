"""Four runs of a recipe begin at once, over the same files and the same table."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path

from embedding_core.lake.lock import Timing
from experiments.faults.child import in_child
from experiments.faults.injections import Experiment, Point, Tally, numbered
from experiments.faults.stage import LOCK_WAIT_SECONDS, Stage, raise_if
from experiments.faults.world import readable
from experiments.races.together import at_once

ROUNDS = 200
RUNS = 4
LOCK = Timing(beat=0.2, expiry=3.0, poll=0.02)
"""A lock that holds: its expiry is many beats."""
NO_LOCK = Timing(beat=60.0, expiry=0.02, poll=0.01)
"""A lock that holds nobody off: no beat comes before the expiry, so each is taken for dead."""
REFUSED = ("LakeError", "Transient", "Wrong")
"""How a run may end that others take for dead; ``Wrong``: it said itself that it failed."""


def four_runs(folder: Path, timing: Timing = LOCK) -> Experiment:
    """Four runs at once, of which the lock lets one after the other work, or holds nobody off."""
    stage = Stage(folder, seed=5)
    for number in range(6):
        stage.world.write(f"f{number}.jsonl")
    stage.prepare(stage.run_and_check)
    stage.save()

    def inject(point: Point, tally: Tally) -> None:
        stage.put_back()
        chance = random.Random(point.number)
        stage.world.reseed(point.number)
        for name in ("new0.jsonl", "new1.jsonl", *chance.sample(sorted(stage.world.files), 2)):
            stage.world.write(name)
        stage.world.remove(chance.choice(sorted(stage.world.files)))
        waits = [chance.choice((0.0, LOCK_WAIT_SECONDS)) for _ in range(RUNS)]
        endings = at_once([partial(stage.run, timing, wait) for wait in waits])
        tally.injections += 1
        tally.endings.update(ending.kind for ending in endings)
        wrong = [ending for ending in endings if ending.kind not in _allowed(timing)]
        tally.violations += [ending.error or ending.kind for ending in wrong]
        tally.expect("readers", in_child(lambda: raise_if(readable(stage.recipe))))
        if timing is LOCK and any(ending.kind == "done" for ending in endings):
            tally.expect("after the runs", in_child(stage.check))
        tally.expect("the next run", in_child(stage.run_and_check))

    lock_words = "" if timing is LOCK else ", and the lock holds nobody off"
    return Experiment(
        injects=f"four runs begin at once{lock_words}",
        must_hold="each run is done or refused; the table is right, after the next run at the "
        "latest",
        stage=stage,
        points=numbered("round", ROUNDS),
        inject=inject,
        is_drawn=True,
    )


def _allowed(timing: Timing) -> tuple[str, ...]:
    return ("done", "Locked") if timing is LOCK else ("done", "Locked", *REFUSED)
