"""Run the experiments that the command line names; go on where an ended command was."""

from __future__ import annotations

import argparse
import json
import logging
import math
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.machine import ROOT, about
from experiments.faults import damages, stops, trainings, writes
from experiments.faults.child import Child
from experiments.faults.injections import Choice, Experiment, Point, Tally
from experiments.faults.journal import Journal, result
from experiments.faults.kills import at_changes, at_moments, of_releases
from experiments.faults.power.losses import power_losses
from experiments.faults.resources import clocks, disks, limits, quotas
from experiments.faults.s3 import harmed_runs
from experiments.faults.stage import Stage
from experiments.orchestration import bad_days
from experiments.orchestration.memory import exhausted_memory
from experiments.races import exchanges, loops, runs, sleepers

EXPERIMENTS: Mapping[str, Callable[[Path], Experiment]] = {
    "kills": at_changes.kills,
    "kills-of-releases": of_releases.kills_of_releases,
    "kills-at-moments": at_moments.kills_at_moments,
    "stops": stops.stops,
    "stops-changed": partial(stops.stops, changed=stops.CHANGED),
    "writes": writes.failed_writes,
    "trainings": trainings.trainings,
    **{
        f"damaged-{room}": partial(damages.damages, room=room)
        for room in damages.WORDS
        if room != damages.STAGED
    },
    "damaged-staged": damages.staged_damages,
    "full-disks": disks.full_disks,
    "read-only-disks": disks.read_only_disks,
    "descriptors": limits.few_descriptors,
    "memory": limits.little_memory,
    "clocks": clocks.jumps,
    "power": power_losses,
    "quotas": quotas.cpu_quotas,
    "s3-kills": harmed_runs.kills,
    "s3-requests": harmed_runs.failed_requests,
    "s3-replies": harmed_runs.lost_replies,
    "s3-refusals": harmed_runs.refusals,
    "s3-outages": harmed_runs.outages,
    "s3-unconditional": harmed_runs.unconditional,
    "four-runs": runs.four_runs,
    "four-runs-unlocked": partial(runs.four_runs, timing=runs.NO_LOCK),
    "loops": loops.loops,
    "loops-indexed": partial(loops.loops, index=loops.INDEX),
    "sleeper-reembed": partial(sleepers.sleepers, sleeper=sleepers.reembed),
    "sleeper-maintain": partial(sleepers.sleepers, sleeper=sleepers.maintain_all),
    "two-exports": exchanges.two_exports,
    "two-imports": exchanges.two_imports,
    "feedback": exchanges.writers_of_feedback,
    "prefect-servers": bad_days.servers,
    "ray-workers": bad_days.ray_workers,
    "ray-nodes": bad_days.ray_nodes,
    "stopped-runs": bad_days.stopped_runs,
    "deployed-runs": bad_days.deployed_runs,
    "throttled-runs": bad_days.throttled_runs,
    "exhausted-memory": exhausted_memory,
}
"""By name; each gets the path of a folder for itself."""


def main() -> int:
    """Run and write; the exit code is 1 when anything was violated."""
    args = _arguments()
    logging.disable(logging.CRITICAL)  # runs that are hit complain, as they should
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    args.results.mkdir(parents=True, exist_ok=True)
    journals = {
        name: Journal(args.results / f"faults-{name}.jsonl") for name in args.only or EXPERIMENTS
    }
    if args.again:
        for journal in journals.values():
            journal.clear()
    origin = about("faults", ("lancedb", "pylance", "pyarrow", "prefect", "ray"))
    choice, deadline = Choice(args.most, args.seed), time.monotonic() + args.seconds
    with tempfile.TemporaryDirectory(prefix="embedlake-faults-") as folder:
        turn = Turn(Path(folder), choice, args.jobs, deadline, origin["commit"])
        experiments = turn.make(journals)
    origin |= {"command": " ".join(["python -m experiments.faults", *sys.argv[1:]])}
    n_violations = 0
    for name, experiment in experiments.items():
        outcome = result(journals[name], origin | experiment)
        (args.results / f"faults-{name}.json").write_text(json.dumps(outcome, indent=1) + "\n")
        n_violations += len(outcome["violations"])
        print(f"{name}: {outcome['injections']} injections of {outcome['chosen']} that were "
              f"chosen, {len(outcome['violations'])} violations, "
              f"{outcome['endings']} {outcome['counts']}", flush=True)  # fmt: skip
    return bool(n_violations)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m experiments.faults", description=__doc__)
    parser.add_argument("--only", action="append", choices=EXPERIMENTS, help="default: all")
    parser.add_argument("--most", type=int, help="injections of each kind; default: every one")
    parser.add_argument("--seed", type=int, default=0, help="draws their order (default 0)")
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin none after that")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default 1)")
    parser.add_argument("--again", action="store_true", help="forget the injections made before")
    parser.add_argument("--results", type=Path, default=ROOT / "experiments" / "results")
    return parser.parse_args()


@dataclass(frozen=True, slots=True)
class Turn:
    """What this command does of every experiment."""

    folder: Path
    choice: Choice
    n_jobs: int
    deadline: float
    """No injection begins after it, on the monotonic clock."""
    commit: str

    def make(self, journals: Mapping[str, Journal]) -> dict[str, dict[str, Any]]:
        """Make the injections that are left; what each experiment is, by its name.

        Jobs are children: they take stages and servers along when they end.
        """
        done = {name: journal.points() for name, journal in journals.items()}
        jobs = [Child(partial(self._job, journals, done, number)) for number in range(self.n_jobs)]
        endings = [job.ending(math.inf) for job in jobs]
        for ending in endings:
            if ending.status:
                raise RuntimeError(ending.error or ending.kind)
        return dict(endings[0].value)

    def _job(
        self, journals: Mapping[str, Journal], done: Mapping[str, set[Point]], number: int
    ) -> dict[str, dict[str, Any]]:
        """Make a job's share of the injections."""
        described, stages = {}, list[Stage]()
        try:
            for name, journal in journals.items():
                experiment = EXPERIMENTS[name](self.folder / str(number) / name)
                if experiment.stage is not None:
                    stages.append(experiment.stage)
                chosen = self.choice.of(experiment.points)
                left = [point for point in chosen if point not in done[name]]
                self._inject(name, experiment, left[number :: self.n_jobs], journal)
                described[name] = {
                    "injects": experiment.injects,
                    "must_hold": experiment.must_hold,
                    "possible": None if experiment.is_drawn else len(experiment.points),
                    "chosen": len(chosen),
                }
        finally:
            for stage in dict.fromkeys(stages):
                stage.close()
        return described

    def _inject(
        self, name: str, experiment: Experiment, points: Sequence[Point], journal: Journal
    ) -> None:
        for point in points:
            if time.monotonic() > self.deadline:
                return
            started, tally = time.monotonic(), Tally()
            experiment.inject(point, tally)
            journal.add(point, tally, time.monotonic() - started, self.commit)
            for violation in tally.violations:
                print(f"VIOLATION {name}, {point.kind} {point.number}: {violation}", flush=True)
