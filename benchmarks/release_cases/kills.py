"""Kill a re-embed at a random point, run it again: what is committed is not done twice."""

from __future__ import annotations

import json
import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.release_cases.beside import FORCED, NEW, UNMERGED, rows_not_of, write_texts
from benchmarks.release_cases.running import embedlake, prefect_api, started
from embedding_core.lake.spaces.vector_columns import columns, missing_rows
from embedding_core.lake.table import table_of
from embedding_core.recipe import Recipe
from tests import driver
from tests.e2e.recipes import write_recipe

KILLS = 20
AT_ONCE = 2
N_FILES, DOCUMENTS_PER_FILE = 150, 100
LONGEST_RUN_SECONDS = 18.0
"""Kills fall uniformly into this time, which covers start-up, filling, the gate and the switch."""


def twenty(folder: Path) -> dict[str, Any]:
    """Twenty seeds; each a fresh table, a kill, and the same command to its end."""
    # Two at once: most of a trial is waiting for the lock of the dead.
    with prefect_api(folder / "home") as environment, ThreadPoolExecutor(AT_ONCE) as pool:
        running = [pool.submit(_trial, folder / str(n), n, environment) for n in range(KILLS)]
        trials = [one.result() for one in running]
    return {
        "kills": KILLS,
        "fragments": N_FILES,
        "killed_while_filling": sum(0 < one["filled_at_the_kill"] < N_FILES for one in trials),
        "violations": [problem for one in trials for problem in one["problems"]],
        "trials": trials,
    }


def _trial(folder: Path, seed: int, environment: dict[str, str]) -> dict[str, Any]:
    folder.mkdir()
    path = write_recipe(folder, model={"name": "hashing", "dim": 128}, maintain=UNMERGED)
    for number in range(N_FILES):
        write_texts(folder, f"f{number}", DOCUMENTS_PER_FILE)
    recipe = Recipe.load(path)
    driver.run(recipe)
    command = ("reembed", str(path), "--model", json.dumps(NEW), *FORCED)
    after = random.Random(seed).uniform(0.0, LONGEST_RUN_SECONDS)
    first = started(environment, *command)
    deadline = time.monotonic() + after
    while first.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    first.send_signal(signal.SIGKILL)
    first.wait()
    filled, promoted = _filled(recipe)
    code, report = embedlake(environment, *command)
    problems = []
    space = report.get("space") or {"fragments": 0}
    if code:
        problems.append(f"the second run ended with exit code {code}: {report.get('error')}")
    # Less than all: Ray's workers outlive the flow by seconds and go on filling.
    if filled + space["fragments"] > N_FILES:
        problems.append(f"{filled} fragments were filled, the second run filled {space}")
    if wrong := rows_not_of(recipe, NEW):
        problems.append(f"{wrong} vectors differ from those of a fresh build")
    print(f"seed {seed}: killed after {after:.1f} s, {problems or 'all true'}", flush=True)
    return {
        "seed": seed, "killed_after_seconds": round(after, 2), "filled_at_the_kill": filled,
        "promoted_before": promoted, "filled_by_the_second_run": space["fragments"],
        "problems": [f"seed {seed}: {problem}" for problem in problems],
    }  # fmt: skip


def _filled(recipe: Recipe) -> tuple[int, bool]:
    """Fragments that have the new vectors already, and whether they are in service."""
    table = table_of(recipe)
    for space in columns(table):
        if space.dim == NEW["dim"]:
            n_missing = len(missing_rows(table.dataset(), space.space_id))
            return N_FILES - n_missing, space.column == "vector"
    return 0, False
