"""A re-embed or maintenance is stopped at a change of a file, others do its work, and it wakes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from embedding_core.lake import lock
from embedding_core.lake.spaces.switching import retire
from embedding_core.lake.table import table_of
from embedding_core.recipe import ModelSpec
from embedding_core.runs.job import locked_for
from embedding_core.runs.maintenance import maintain
from embedding_core.runs.space.build import (
    add_space,
    backfill_fragment,
    fragments_to_fill,
    space_job,
)
from embedding_core.runs.space.release import go_back, is_in_service, promote_space
from experiments.faults.child import Child, in_child
from experiments.faults.injections import Experiment, Point, Tally, numbered
from experiments.faults.shim import Fault
from experiments.faults.stage import (
    LOCK_TIMING,
    LOCK_WAIT_SECONDS,
    RESOURCES,
    Stage,
    Wrong,
    raise_if,
)
from experiments.machine.spaces import DIMS, column_of, spaces_of, unfilled

OLD_DIM, NEW_DIM = DIMS[:2]
BY = "the experiment"
FILES = 6

Act = Callable[[Stage], None]


def reembed(stage: Stage) -> None:
    """What the flow does, without Prefect and Ray, and without its gate."""
    lock.TIMING = LOCK_TIMING
    recipe, model = stage.recipe, ModelSpec(name="hashing", dim=NEW_DIM)
    with locked_for(recipe, BY, LOCK_WAIT_SECONDS, "build") as build_lock:
        _begun(stage).touch()
        job = space_job(recipe, model, RESOURCES, BY)
        if is_in_service(job):
            return
        add_space(job, build_lock.check)
        while groups := fragments_to_fill(job):
            build_lock.check()
            for fragment_id in (fragment_id for group in groups for fragment_id in group):
                backfill_fragment(job, fragment_id)
        build_lock.check()
        promote_space(job, BY, None, build_lock.check)


def reembed_and_go_back(stage: Stage) -> None:
    """The space is put in service, and taken out of service again."""
    reembed(stage)
    go_back(stage.recipe, RESOURCES, BY)


def reembed_and_retire(stage: Stage) -> None:
    """The space is put in service, taken out of service, and dropped."""
    reembed_and_go_back(stage)
    retire(table_of(stage.recipe), column_of(NEW_DIM), BY)


def maintain_all(stage: Stage) -> None:
    """Maintenance without a problem."""
    lock.TIMING = LOCK_TIMING
    raise_if(maintain(stage.recipe).problems)


SUCCESSORS: Mapping[Act, tuple[Act, ...]] = {
    reembed: (reembed, reembed_and_go_back, reembed_and_retire),
    maintain_all: (maintain_all,),
}
"""What is done while each sleeps; then files change and a run goes on."""
WORDS: Mapping[Act, str] = {reembed: "a re-embed", maintain_all: "maintenance"}


def sleepers(folder: Path, sleeper: Act) -> Experiment:
    """A re-embed or maintenance sleeps while others do its work."""
    stage, act = _stage(folder), sleeper
    sleep = partial(act, stage)
    successors = {successor.__name__: successor for successor in SUCCESSORS[act]}

    def inject(point: Point, tally: Tally) -> None:
        stage.put_back()
        _begun(stage).unlink(missing_ok=True)
        child = Child(stage.hit(Fault.STOP, point.number, sleep))
        if not child.wait_for_stop():
            child.ending()
            tally.counts["ended before the change"] += 1
            return
        if not _has_begun(stage, act):
            child.wake()
            child.ending()
            tally.counts["stopped before it had its lock"] += 1
            return
        tally.expect("the successor", in_child(partial(successors[point.kind], stage)))
        for number in (0, 3):
            stage.world.write(f"f{number}.jsonl")
        run = in_child(partial(_run, stage))
        tally.expect("a run", run)
        child.wake()
        tally.injected(child.ending())
        tally.expect("after the wake", in_child(partial(_check, stage, run.value)))
        tally.expect("the next run", in_child(partial(_run_and_maintain, stage)))

    n_changes = stage.n_changes(Fault.STOP, sleep)
    return Experiment(
        injects=f"{WORDS[act]} is stopped at a change of a file, others do its work, files change "
        "and a run goes on; then it wakes",
        must_hold="it changes neither rows nor spaces any more",
        stage=stage,
        points=[point for name in successors for point in numbered(name, n_changes)],
        inject=inject,
    )


def _stage(folder: Path) -> Stage:
    stage = Stage(
        folder,
        seed=7,
        model={"dim": OLD_DIM},
        release={"follow": True},
        maintain={"small_fragments": 4},
    )
    for number in range(FILES):
        stage.world.write(f"f{number}.jsonl")
    stage.prepare(stage.run_and_check)
    for number in (1, 2):
        stage.world.write(f"f{number}.jsonl")
    stage.prepare(stage.run_and_check)
    stage.save()
    return stage


def _has_begun(stage: Stage, sleeper: Act) -> bool:
    """Whether what stopped has its lock; else it is no sleeper, but begins when it wakes."""
    return sleeper is maintain_all or _begun(stage).exists()


def _begun(stage: Stage) -> Path:
    """A file beside the lake: a record of the lock is there before its holder has it for sure."""
    return stage.lake.parent / "begun"


def _run(stage: Stage) -> str:
    """The spaces after a run."""
    stage.run_and_check()
    return repr(spaces_of(stage.recipe))


def _check(stage: Stage, spaces: str) -> None:
    """Raise ``Wrong`` when rows or spaces are not as they were before the wake."""
    stage.check()
    now = spaces_of(stage.recipe)
    if repr(now) != spaces:
        raise Wrong(f"the spaces are {now}; before the wake they were {spaces}")
    if now is not None:
        unfilled(stage.recipe, now.hidden_dims)


def _run_and_maintain(stage: Stage) -> None:
    stage.run_and_check()
    maintain_all(stage)
    stage.check()
