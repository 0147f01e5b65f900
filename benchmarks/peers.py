"""The same small job by embedlake and by what people would use instead, step by step.

350 documents in 10 files of JSON lines, all-MiniLM-L6-v2, a local LanceDB table. Each peer is a
program under ``peer_programs/`` in an environment of its own; embedlake is its command line, with
the Prefect server that ``embedlake up`` keeps, whose own seconds are not counted. Every peer goes
through all steps, peers take turns, medians are compared. After each step an oracle compares the
table with the files: each document once, its text, its vector as sentence-transformers makes it.

    python -m benchmarks.peers --environments DIR [--turns 3] [--only plain --only embedlake]

Environments that are missing are made (some GB each). Writes ``benchmarks/results/peers.json``.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from benchmarks.machine import RESULTS, about
from benchmarks.peer_cases.corpus import prepare
from benchmarks.peer_cases.peer import EMBEDLAKE, PEERS, peers
from benchmarks.peer_cases.processes import KEPT, become_subreaper
from benchmarks.peer_cases.steps import Measured, first_load_seconds, steps
from embedlake.local import stack
from embedlake.settings import Settings


def main() -> None:
    """Run the steps and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--environments", type=Path, required=True)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--only", action="append", default=[], choices=[*PEERS, EMBEDLAKE])
    arguments = parser.parse_args()
    settings = Settings(home=Path(tempfile.mkdtemp(prefix="peers-home-")))
    running = stack.up(settings)
    KEPT.update(child.pid for child in psutil.Process().children(recursive=True))
    become_subreaper()
    results: dict[str, dict[str, list[Measured]]] = {}
    try:
        tools = peers(arguments.environments, arguments.only, settings, running.api_url)
        for turn in range(arguments.turns):
            for peer in tools:
                folder = Path(tempfile.mkdtemp(prefix=f"peers-{peer.name}-"))
                prepare(folder)
                for step, run in steps(folder):
                    done = run(peer)
                    if step == "first load":
                        first_load_seconds[peer.name] = done.seconds
                    results.setdefault(step, {}).setdefault(peer.name, []).append(done)
                    print(turn, peer.name, step, asdict(done), file=sys.stderr, flush=True)
                shutil.rmtree(folder)
    finally:
        stack.down(settings)
    shutil.rmtree(settings.home, ignore_errors=True)
    content = about("peers", ["prefect", "ray", "lancedb", "torch"]) | {
        "peers": {name: list(packages) for name, (_, packages) in PEERS.items()},
        "turns": arguments.turns,
        "steps": {
            step: {name: _summary(runs) for name, runs in by_peer.items()}
            for step, by_peer in results.items()
        },
    }
    (RESULTS / "peers.json").write_text(json.dumps(content, indent=1) + "\n")


def _summary(runs: Sequence[Measured]) -> dict[str, Any]:
    """Medians over the turns, and everything that the oracle or an exit code said."""
    return {
        "seconds": round(statistics.median(run.seconds for run in runs), 1),
        "cpu_seconds": round(statistics.median(run.cpu_seconds for run in runs), 1),
        "peak_mib": round(statistics.median(run.peak_mib for run in runs)),
        "exit_codes": [run.exit_code for run in runs],
        "problems": [run.problem for run in runs],
    }


if __name__ == "__main__":
    main()
