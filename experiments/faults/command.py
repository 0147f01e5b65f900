"""Run the experiments that the command line names, and write what came of each."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.machine import ROOT, about
from experiments.faults import flips, kills, stops, trainings, writes
from experiments.faults.stage import Choice, Tally

EXPERIMENTS: Mapping[str, Callable[[Path, Choice], Tally]] = {
    "kills": kills.kills,
    "stops": stops.stops,
    "stops-changed": partial(stops.stops, changed=stops.CHANGED),
    "writes": writes.failed_writes,
    "trainings": trainings.trainings,
    "flips-data": partial(flips.flips, room="data"),
    "flips-indexes": partial(flips.flips, room="_indices"),
    "flips-manifests": partial(flips.flips, room="_versions"),
    "truncations": partial(flips.flips, truncated=True),
}
"""By name; each gets an empty folder and which injections to make."""


def main() -> int:
    """Run and write; the exit code is 1 when anything was violated."""
    args = _arguments()
    logging.disable(logging.CRITICAL)  # runs that are hit complain, as they should
    args.results.mkdir(parents=True, exist_ok=True)
    n_violations = 0
    for name in args.only or EXPERIMENTS:
        started = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="embedlake-faults-") as folder:
            tally = EXPERIMENTS[name](Path(folder), Choice(args.most, args.seed))
        result = _origin() | _figures(tally, time.perf_counter() - started)
        (args.results / f"faults-{name}.json").write_text(json.dumps(result, indent=1) + "\n")
        n_violations += len(tally.violations)
        print(f"{name}: {tally.injections} injections, {len(tally.violations)} violations, "
              f"{dict(tally.endings)} {dict(tally.counts)}", flush=True)  # fmt: skip
    return bool(n_violations)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m experiments.faults", description=__doc__)
    parser.add_argument("--only", action="append", choices=EXPERIMENTS, help="default: all")
    parser.add_argument("--most", type=int, help="injections of each kind; default: every one")
    parser.add_argument("--seed", type=int, default=0, help="draws them (default 0)")
    parser.add_argument("--results", type=Path, default=ROOT / "experiments" / "results")
    return parser.parse_args()


def _origin() -> dict[str, Any]:
    command = " ".join(["python -m experiments.faults", *sys.argv[1:]])
    return about("faults", ("lancedb", "pylance", "pyarrow")) | {"command": command}


def _figures(tally: Tally, seconds: float) -> dict[str, Any]:
    """``share_at_most``: at 95 %, by the rule of three."""
    n_injections, n_violations = tally.injections, len(tally.violations)
    return {
        "possible": tally.possible,
        "injections": n_injections,
        "violations": tally.violations,
        "share_at_most": None if n_violations or not n_injections else round(3 / n_injections, 4),
        "endings": dict(tally.endings),
        "counts": dict(tally.counts),
        "seconds": round(seconds),
    }
