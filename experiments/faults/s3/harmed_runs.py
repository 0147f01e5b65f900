"""A run on S3 whose requests fail, are lost, cut or delayed, or whose process is killed at one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from experiments.faults.child import Child, in_child
from experiments.faults.injections import Experiment, Point, Tally, numbered
from experiments.faults.s3.bucket_stage import BucketStage, shared_bucket
from experiments.faults.s3.trouble import CHANGES, Harm, Trouble
from experiments.faults.stage import raise_if
from experiments.faults.world import readable

MANIFESTS = r"^PUT .*/_versions/.*manifest"
PUTS = "^(PUT|POST) "
ANY = "."
OUTAGE_SECONDS = 20.0
DELAY_SECONDS = 2.0
REFUSED_SHARE = 0.2
SEEDS = 10
LONGEST_SECONDS = 300.0
NEW_LAKE, OLD_LAKE = "a new lake", "a lake that was elsewhere before"
ENDS = frozenset({"done", "Transient", "LakeError", "Wrong"})
"""How a run may end whose requests are harmed; ``Wrong``: with a report that says failed."""
HEALS = (
    "a run that says done is done, any other ends with an error of embedlake's; readers see whole "
    "files; the next run makes the table right"
)


def kills(folder: Path) -> Experiment:
    """Kill the process of a run before and after every request that changes the store."""
    stage = shared_bucket(folder)
    n_requests, kinds = stage.n_requests(CHANGES), (Harm.KILL_BEFORE, Harm.KILL_AFTER)

    def inject(point: Point, tally: Tally) -> None:
        stage.put_back()
        trouble = Trouble(Harm(point.kind), number=point.number)
        tally.injected(in_child(stage.troubled(trouble, stage.run)))
        stage.proxy.give(Trouble())
        tally.expect("the next run", in_child(stage.run_and_check))

    return Experiment(
        injects="on S3, a run is killed before or after a request that changes the store",
        must_hold="the same run again makes the table right, and nothing is left to do",
        stage=stage,
        points=[point for kind in kinds for point in numbered(kind, n_requests)],
        inject=inject,
    )


def lost_replies(folder: Path) -> Experiment:
    """The store has a manifest, and its writer does not know."""
    stage = shared_bucket(folder)
    harms = (Harm.LOSE_REPLY, Harm.DENY)
    return _harmed(
        stage,
        injects="on S3, the reply to the PUT of a manifest is lost, or says 500",
        points=_numbered(harms, stage.n_requests(MANIFESTS)),
        troubles={harm: _nth(harm, MANIFESTS) for harm in harms},
    )


def failed_requests(folder: Path) -> Experiment:
    """Any single request fails, is cut or comes late."""
    stage = shared_bucket(folder)
    harms = (Harm.REFUSE_500, Harm.LOSE_REPLY, Harm.CUT, Harm.DELAY)
    return _harmed(
        stage,
        injects="on S3, one request is refused with 500, loses its reply, is cut in half, or is "
        f"delayed by {DELAY_SECONDS:g} s",
        points=_numbered(harms, stage.n_requests(ANY)),
        troubles={harm: _nth(harm, ANY, DELAY_SECONDS) for harm in harms},
    )


def refusals(folder: Path) -> Experiment:
    """A fifth of all PUTs is refused."""
    harms = (Harm.REFUSE_500, Harm.REFUSE_503)

    def drawn(harm: Harm, seed: int) -> Trouble:
        return Trouble(harm, PUTS, share=REFUSED_SHARE, seed=seed)

    return _harmed(
        shared_bucket(folder),
        injects=f"on S3, {REFUSED_SHARE:.0%} of all PUTs and POSTs answer 500 or 503",
        points=_numbered(harms, SEEDS),
        troubles={harm: partial(drawn, harm) for harm in harms},
        is_drawn=True,
    )


def outages(folder: Path) -> Experiment:
    """The store is dead for a while amid a run, or once it has a manifest."""
    stage = shared_bucket(folder)
    matches = {Harm.OUTAGE: ANY, Harm.REPLY_AND_OUTAGE: MANIFESTS}
    return _harmed(
        stage,
        injects=f"on S3, the store is dead for {OUTAGE_SECONDS:g} s from a request on, or from the "
        "reply to the PUT of a manifest on",
        points=[
            point for harm in matches for point in numbered(harm, stage.n_requests(matches[harm]))
        ],
        troubles={harm: _nth(harm, matches[harm], OUTAGE_SECONDS) for harm in matches},
    )


def unconditional(folder: Path) -> Experiment:
    """A store that ignores ``If-None-Match``: two writers could overwrite each other."""
    stage = shared_bucket(folder)

    def objects() -> list[str]:
        return [uri for uri in stage.objects() if "/_embedlake/docs/lock/" not in uri]

    def inject(point: Point, tally: Tally) -> None:
        stage.put_back(with_lake=point.kind == OLD_LAKE)
        before = in_child(objects)
        trouble = Trouble(Harm.STRIP, ANY, share=1.0, header="If-None-Match")
        ending = in_child(stage.troubled(trouble, stage.run))
        stage.proxy.give(Trouble())
        tally.injected(ending)
        if "ignores If-None-Match" not in ending.error:
            tally.violations.append(f"the run ended as {ending.error or ending.kind}")
        after = in_child(objects)
        if after.value != before.value:
            tally.violations.append(f"there was {before.value}, now there is {after.value}")
        tally.expect("the next run", in_child(stage.run_and_check))

    return Experiment(
        injects="the store ignores `If-None-Match`",
        must_hold="the run refuses it before it writes anything but a lock; at a better store the "
        "next run makes the table right",
        stage=stage,
        points=[Point(NEW_LAKE, 1), Point(OLD_LAKE, 1)],
        inject=inject,
    )


def _nth(harm: Harm, matches: str, seconds: float = 0.0) -> Callable[[int], Trouble]:
    def trouble(number: int) -> Trouble:
        return Trouble(harm, matches, number, seconds=seconds)

    return trouble


def _numbered(harms: Sequence[Harm], n_points: int) -> list[Point]:
    return [point for harm in harms for point in numbered(harm, n_points)]


def _harmed(
    stage: BucketStage,
    injects: str,
    points: Sequence[Point],
    troubles: Mapping[Harm, Callable[[int], Trouble]],
    is_drawn: bool = False,
) -> Experiment:
    """Runs whose requests are harmed but whose process lives."""

    def inject(point: Point, tally: Tally) -> None:
        stage.put_back()
        trouble = troubles[Harm(point.kind)](point.number)
        ending = Child(stage.troubled(trouble, stage.run)).ending(LONGEST_SECONDS)
        if not stage.proxy.give(Trouble()).n_harmed:
            tally.counts["ended before the request"] += 1
            return
        tally.injected(ending)
        if ending.kind not in ENDS:
            tally.violations.append(f"the run ended as {ending.error or ending.kind}")
        if ending.kind == "done":
            tally.expect("the table of a run that says done", in_child(stage.check))
        tally.expect("readers", in_child(lambda: raise_if(readable(stage.recipe))))
        tally.expect("the next run", in_child(stage.run_and_check))

    return Experiment(injects, HEALS, stage, points, inject, is_drawn)
