"""Kill the run, again and again: the table must end as if nothing had happened.

    python -m benchmarks.faults --kills 20

For each seed: documents are written, `embedlake embed` is started on a real Prefect server and Ray
and killed with SIGKILL at a random moment, some documents change, and the same command is run to
its end. Then the table is held against a model of the files: every chunk once, of the newest
version, with the vector of its text, and a balanced ledger. A claim is "N kills, 0 violations":
fewer than 3/N at 95 % (rule of three). Writes ``benchmarks/results/faults-kill-flow.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import RESULTS, about
from embedding_core.encoder import Encoder
from embedding_core.lake.table import table_of
from embedding_core.recipe import Recipe
from embedding_core.runs.embed.planning import plan
from embedlake.local import stack
from embedlake.settings import Settings
from tests.e2e.recipes import write_recipe

N_FILES = 12
DOCUMENTS_PER_FILE = 20
LONGEST_RUN_SECONDS = 16.0
"""Kills fall uniformly into this time, which covers start-up, work, commit and verification."""
DIM = 32
Truth = dict[str, dict[str, str]]
"""Text by document id, by file name."""


def main() -> None:
    """Run every seed, write the result."""
    args = _arguments()
    origin = about("faults", ("prefect", "ray", "lancedb", "pylance"))
    with tempfile.TemporaryDirectory() as home:
        settings = Settings(home=Path(home))
        running = stack.up(settings)
        try:
            trials = [_trial(seed, running.api_url) for seed in range(args.kills)]
        finally:
            stack.down(settings)
    violations = [problem for trial in trials for problem in trial["problems"]]
    result = origin | {
        "kills": len(trials),
        "killed_while_running": sum(trial["killed_while_running"] for trial in trials),
        "violations": violations,
        "trials": trials,
    }
    target = RESULTS / "faults-kill-flow.json"
    target.write_text(json.dumps(result, indent=1) + "\n")
    print(f"{len(trials)} kills, {len(violations)} violations; wrote {target.name}")
    sys.exit(1 if violations else 0)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20, help="seeds to run (default 20)")
    return parser.parse_args()


def _trial(seed: int, api_url: str) -> dict[str, Any]:
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = write_recipe(folder, model={"name": "hashing", "dim": DIM})
        truth: Truth = {}
        for number in range(N_FILES):
            _write_file(folder, truth, f"f{number}.jsonl", chance)
        first = _start(path, api_url)
        killed_after = chance.uniform(0.0, LONGEST_RUN_SECONDS)
        killed_while_running = _kill_after(first, killed_after)
        _change(folder, truth, chance)
        last = _start(path, api_url)
        exit_code = last.wait()
        problems = _problems(Recipe.load(path), truth)
    if exit_code:
        problems.append(f"the last run ended with exit code {exit_code}")
    print(f"seed {seed}: killed after {killed_after:.1f} s, {problems or 'all true'}", flush=True)
    return {
        "seed": seed,
        "killed_after_seconds": round(killed_after, 2),
        "killed_while_running": killed_while_running,
        "problems": [f"seed {seed}: {problem}" for problem in problems],
    }


def _start(recipe: Path, api_url: str) -> subprocess.Popen[bytes]:
    program = Path(sys.executable).parent / "embedlake"
    return subprocess.Popen(
        [str(program), "embed", str(recipe),
         "--set", "unit_bytes=1", "--set", "units_per_commit=3"],
        env={**os.environ, "PREFECT_API_URL": api_url},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip


def _kill_after(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """SIGKILL the process; whether it was still running then."""
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    running = process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    return running


def _write_file(folder: Path, truth: Truth, name: str, chance: random.Random) -> None:
    documents = {
        f"{name}-{number}": " ".join(f"w{chance.randrange(500)}" for _ in range(12))
        for number in range(DOCUMENTS_PER_FILE)
    }
    target = folder / "src" / name
    target.parent.mkdir(exist_ok=True)
    lines = [json.dumps({"id": key, "text": text}) for key, text in documents.items()]
    target.write_text("\n".join(lines) + "\n")
    truth[name] = documents


def _change(folder: Path, truth: Truth, chance: random.Random) -> None:
    """Replace two files, remove one, add one."""
    changed, replaced, removed = chance.sample(sorted(truth), 3)
    for name in (changed, replaced, "new.jsonl"):
        _write_file(folder, truth, name, chance)
    (folder / "src" / removed).unlink()
    del truth[removed]


def _problems(recipe: Recipe, truth: Truth) -> list[str]:
    """Everything in which the table differs from the model of the files."""
    expected = {(name, key): text for name, docs in truth.items() for key, text in docs.items()}
    columns = ["source_uri", "doc_id", "text", "vector", "chunk_id"]
    rows = table_of(recipe).dataset().to_table(columns=columns).to_pylist()
    found = {(Path(row["source_uri"]).name, row["doc_id"]): row["text"] for row in rows}
    problems = []
    if len(rows) != len({row["chunk_id"] for row in rows}):
        problems.append("a chunk_id stands twice")
    if found != expected or len(rows) != len(expected):
        problems.append(f"{len(rows)} rows instead of {len(expected)}, or other texts")
    own = Encoder.load("hashing", dim=DIM).encode_documents([row["text"] for row in rows])
    stored = np.array([row["vector"] for row in rows], np.float32)
    if not np.allclose(own, stored, atol=1e-3):
        problems.append("a vector is not that of its text")
    if not plan(recipe).is_empty:
        problems.append("the plan is not empty after the last run")
    return problems


if __name__ == "__main__":
    main()
