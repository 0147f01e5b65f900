"""Run campaigns and write what came of each: see ``experiments.fuzz``."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks.machine import ROOT, about
from experiments.fuzz.campaign import Campaign, go_on
from experiments.fuzz.target import SERVE, TARGETS, target_named

PACKAGES = ("pyarrow", "pypdfium2", "mammoth", "python-pptx", "trafilatura", "lxml", "PyYAML",
            "pydantic",
            "httpx2", "numpy", "pylance", "schemathesis")  # fmt: skip


def main() -> int:
    """Run and write; the exit code is 1 when a promise was broken."""
    args = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    until = time.monotonic() + args.seconds
    args.results.mkdir(parents=True, exist_ok=True)
    n_violations = 0
    for name in args.target or [*TARGETS, SERVE]:
        n_violations += _asked(args) if name == SERVE else _read(name, args, until)
    return bool(n_violations)


def _read(name: str, args: argparse.Namespace, until: float) -> int:
    """Go on with a target's campaign; how many violations it has."""
    target = target_named(name)
    path = args.results / f"fuzz-{target.name}.json"
    if args.anew:
        path.unlink(missing_ok=True)
    campaign = Campaign.of(target, args.seed, path)
    try:
        go_on(campaign, target, args.inputs, until)
    finally:  # also when the command is told to end
        _write(path, campaign.figures())
    print(f"{name}: {campaign}", flush=True)
    return len(campaign.violations)


def _asked(args: argparse.Namespace) -> int:
    """Ask a server; how many violations there were."""
    from experiments.fuzz.serving import ask, served  # schemathesis takes a second to import

    with served() as url:
        asked = ask(url, args.inputs, args.seed)
    share = None if asked.violations else round(3 / asked.requests, 6)
    _write(
        args.results / f"fuzz-{SERVE}.json",
        {"target": SERVE, "seed": args.seed, **asked.figures(), "share_at_most": share},
    )
    print(f"{SERVE}: {asked}", *asked.violations, sep="\n", flush=True)
    return len(asked.violations)


def _write(path: Path, figures: Mapping[str, object]) -> None:
    command = " ".join(["python -m experiments.fuzz", *sys.argv[1:]])
    content = {**about("fuzz", PACKAGES), "command": command, **figures}
    path.write_text(json.dumps(content, indent=1) + "\n")


def _arguments() -> argparse.Namespace:
    names = ", ".join([*TARGETS, SERVE])
    parser = argparse.ArgumentParser(prog="python -m experiments.fuzz", description=__doc__)
    parser.add_argument("--target", action="append", help=f"default: {names}")
    parser.add_argument("--inputs", type=int, default=10_000, help="of each target, in all")
    parser.add_argument("--seed", type=int, default=1, help="another one makes other inputs")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after this time")
    parser.add_argument("--anew", action="store_true", help="forget what was read before")
    parser.add_argument("--results", type=Path, default=ROOT / "experiments" / "results")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
