"""Put peers to the trials that the command line names; go on where an ended command was.

Violations of peers are results, not errors: the exit code is 0.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import ROOT, about
from experiments.faults.injections import Point
from experiments.faults.journal import Journal, result
from experiments.peers.peer import TOOLS, Peer, environment, versions
from experiments.peers.trials import TRIALS, tried

MUST_HOLD = (
    "the same command again ends with 0, and the table has every word of the files once, with the "
    "right vector, and no other word"
)


def main() -> None:
    """Try and write; peers take turns."""
    args = _arguments()
    deadline = time.monotonic() + args.seconds
    args.results.mkdir(parents=True, exist_ok=True)
    names = args.peer or list(TOOLS)
    origin = about("peers", ())
    origin |= {"command": " ".join(["python -m experiments.peers", *_shown(sys.argv[1:])])}
    with tempfile.TemporaryDirectory(prefix="embedlake-peers-") as folder:
        peers = [
            Peer(name, environment(name, args.environments), Path(folder) / name)
            for name in names
            if args.seconds > 0
        ]
        for trial in args.only or TRIALS:
            journal = Journal(args.results / f"peers-{trial}.jsonl")
            try_all(trial, peers, journal, args.rounds, deadline, origin["commit"])
            content = _result(trial, journal, origin)
            path = args.results / f"peers-{trial}.json"
            path.write_text(json.dumps(content, indent=1) + "\n")
        for peer in peers:
            peer.close()


def try_all(
    name: str,
    peers: Sequence[Peer],
    journal: Journal,
    rounds: int | None,
    deadline: float,
    commit: str,
) -> None:
    """Do the rounds of a trial that have no line in its journal, each with every peer in turn."""
    trial, done = TRIALS[name], journal.points()
    for number in range(1, (rounds or trial.rounds) + 1):
        for peer in peers:
            point = Point(peer.name, number)
            if point in done or time.monotonic() > deadline:
                continue
            started = time.monotonic()
            tally = tried(trial, name, peer, number)
            journal.add(point, tally, time.monotonic() - started, commit)
            print(f"{name} {number} {peer.name}: {tally.violations} {dict(tally.counts)}")


def _result(name: str, journal: Journal, origin: Mapping[str, Any]) -> dict[str, Any]:
    tools = dict.fromkeys(line["kind"] for line in journal.lines())
    return {
        **origin,
        "injects": TRIALS[name].injects,
        "peers_must_hold": MUST_HOLD,
        "peers": {
            tool: result(journal, {"versions": versions(tool)}, tool)
            for tool in TOOLS
            if tool in tools
        },
    }


def _shown(arguments: Sequence[str]) -> list[str]:
    """Arguments without the path of the environments, which says nothing elsewhere."""
    pairs = zip(["", *arguments], arguments, strict=False)
    return ["DIR" if before == "--environments" else argument for before, argument in pairs]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m experiments.peers", description=__doc__)
    parser.add_argument("--environments", type=Path, required=True, help="made where missing")
    parser.add_argument("--only", action="append", choices=TRIALS, help="default: all")
    parser.add_argument("--peer", action="append", choices=TOOLS, help="default: all")
    parser.add_argument("--rounds", type=int, help="of each trial; default: as many as it has")
    parser.add_argument(
        "--seconds",
        type=float,
        default=math.inf,
        help="begin none after that; 0 writes what journals hold",
    )
    parser.add_argument("--results", type=Path, default=ROOT / "experiments" / "results")
    return parser.parse_args()
