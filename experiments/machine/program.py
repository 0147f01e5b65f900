"""Tell stories in parts, each from a seed of its own, and keep what came of every part."""

from __future__ import annotations

import argparse
import gc
import json
import logging
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from benchmarks.machine import ROOT, about
from experiments.machine.user import EXAMPLES, STEPS, User

EXAMPLES_PER_PART = 5
SEEDS_OF_A_PROGRAM = 10_000
"""Parts that a program can have without a seed of the next program's."""
LONGEST_STORY = 20_000
"""Characters that are kept of a story and its error."""


def main() -> int:
    """Tell the stories of the parts that are left; the exit code is 1 when one ended badly."""
    args = _arguments()
    gc.freeze()  # else each child would copy what the collector looks at
    logging.disable(logging.CRITICAL)  # runs that are hit complain, as they should
    args.results.mkdir(parents=True, exist_ok=True)
    path = args.results / "machine.json"
    parts = _parts_done(path, args.steps)
    for start in range(0, args.examples, EXAMPLES_PER_PART):
        number = args.seed * SEEDS_OF_A_PROGRAM + start // EXAMPLES_PER_PART
        n_examples = min(EXAMPLES_PER_PART, args.examples - start)
        if parts.get(str(number), {}).get("examples", 0) < n_examples:
            part = _told(number, n_examples, args.steps)
            parts[str(number)] = part
            path.write_text(json.dumps(_result(parts), indent=1) + "\n")
            print(f"seed {number}: {part['steps']} steps, {part['seconds']} s, {part['endings']}")
            print(*part["violations"], sep="\n", flush=True)
    return any(part["violations"] for part in parts.values())


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m experiments.machine", description=__doc__)
    parser.add_argument("--examples", type=int, default=300, help="stories (default 300)")
    parser.add_argument("--steps", type=int, default=40, help="steps of a story (default 40)")
    parser.add_argument("--seed", type=int, default=1, help="draws the stories (default 1)")
    parser.add_argument("--results", type=Path, default=ROOT / "experiments" / "results")
    return parser.parse_args()


def _parts_done(path: Path, n_steps: int) -> dict[str, Any]:
    """Parts that another call of the program did, by their seeds."""
    parts: dict[str, Any] = json.loads(path.read_text())["parts"] if path.exists() else {}
    return {number: part for number, part in parts.items() if part["steps_per_story"] == n_steps}


def _told(number: int, n_examples: int, n_steps: int) -> dict[str, Any]:
    """Tell stories from one seed; the shortest story that ends badly is a violation."""
    started = time.perf_counter()
    violations: list[str] = []
    User.endings.clear()
    chosen = settings(
        max_examples=n_examples,
        stateful_step_count=n_steps,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    with tempfile.TemporaryDirectory(prefix="embedlake-machine-") as folder:
        User.folder = Path(folder) / "story"
        try:
            run_state_machine_as_test(seed(number)(User), settings=chosen)
        except Exception as error:
            lines = [*getattr(error, "__notes__", ()), f"{type(error).__name__}: {error}"]
            violations.append("\n".join(lines)[:LONGEST_STORY])
    endings = Counter(User.endings)
    told, steps = endings.pop(EXAMPLES), endings.pop(STEPS)
    return {
        "steps_per_story": n_steps,
        "examples": told,
        "steps": steps,
        "violations": violations,
        "endings": dict(sorted(endings.items())),
        "seconds": round(time.perf_counter() - started),
    }


def _result(parts: dict[str, Any]) -> dict[str, Any]:
    command = " ".join(["python -m experiments.machine", *sys.argv[1:]])
    versions = ("lancedb", "pylance", "pyarrow", "hypothesis")
    endings = sum((Counter(part["endings"]) for part in parts.values()), Counter[str]())
    violations = [story for part in parts.values() for story in part["violations"]]
    n_examples = sum(part["examples"] for part in parts.values())
    totals = {
        "examples": n_examples,
        "steps": sum(part["steps"] for part in parts.values()),
        "seconds": sum(part["seconds"] for part in parts.values()),
        "violations": violations,
        "share_at_most": None if violations else round(3 / max(1, n_examples), 4),
        "endings": dict(sorted(endings.items())),
    }
    return about("machine", versions) | {"command": command} | totals | {"parts": parts}
