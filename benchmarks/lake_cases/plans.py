"""Plans over many files: what finding out that there is nothing, or much, to do costs."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks.lake_cases.tables import (
    lake_on,
    recipe_for,
    table_of_files,
    timed,
    write_file,
)  # fmt: skip
from embedding_core.recipe import Recipe, Resources
from embedding_core.runs.embed.planning import plan
from embedding_core.runs.embed.units import work_units
from embedding_core.sources import discover
from tests import driver
from tests.s3 import S3Server, s3_server

N_FILES, ROWS_PER_FILE = 10_000, 100
N_TINY, N_MILLION = 100_000, 1_000_000
PLAN_SECONDS = 60.0
TINY_BYTES = 1_024
REPEATS = 3


def ten_thousand_files(folder: Path) -> dict[str, Any]:
    """Plan and an empty run by the command line: 10,000 files, a million rows, all unchanged.

    On local disk, where the folder is then renamed; then files and table on an S3 server.
    """
    for number in range(N_FILES):
        write_file(folder, _name(number), ROWS_PER_FILE)
    recipe = recipe_for(folder)
    with s3_server(folder / "s3") as server:
        remote = _on_server(recipe, server)
        figures: dict[str, Any] = {
            "files": N_FILES,
            "rows": N_FILES * ROWS_PER_FILE,
            "local": _unchanged(recipe, folder),
            "s3_server": _unchanged(remote, folder),
        }
        changed = [_name(number) for number in range(0, N_FILES, 100)]
        for name in changed:
            write_file(folder, name, ROWS_PER_FILE, "changed")
        _upload(server, folder / "src", remote, changed)
        for place, one in (("local", recipe), ("s3_server", remote)):
            write_recipe(folder, one)
            figures[place]["plan_of_a_hundred_changed"] = _best_of(folder, "plan")
    (folder / "src").rename(folder / "moved")
    moved = recipe_for(folder, source={"uri": str(folder / "moved"), "id": "id"})
    write_recipe(folder, moved)
    figures["local"]["moved"] = sum(one.change == "moved" for one in plan(moved).files)
    figures["local"]["plan_of_a_renamed_folder"] = _best_of(folder, "plan")
    return figures


def hundred_thousand_files(folder: Path) -> dict[str, Any]:
    """Discovery, plan and packing of 100,000 files of 1 KB that no table holds yet."""
    recipe = _tiny_files(folder, N_TINY)
    with s3_server(folder / "s3") as server:
        return {"local": _first_plan(recipe, folder),
                "s3_server": _first_plan(_on_server(recipe, server), folder)}  # fmt: skip


def million_files(folder: Path) -> dict[str, Any]:
    """Plan of a million files of 1 KB on local disk, by the command line; at most 60 seconds."""
    write_recipe(folder, _tiny_files(folder, N_MILLION))
    taken = command_of(folder, "plan")
    return {"files": N_MILLION, "plan": taken, "reached": taken["seconds"] <= PLAN_SECONDS}


def _tiny_files(folder: Path, n_files: int) -> Recipe:
    text = "word " * (TINY_BYTES // 5)
    for number in range(n_files):
        path = folder / "src" / f"{number % 1_000:03}" / f"{number:06}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{number:06} {text}"[:TINY_BYTES])
    return recipe_for(folder, source={"uri": str(folder / "src")})


def _unchanged(recipe: Recipe, folder: Path) -> dict[str, Any]:
    table_of_files(recipe, ROWS_PER_FILE)
    settled = driver.run(recipe, Resources())  # builds the indexes
    assert settled.unchanged == N_FILES and settled.chunks == 0
    write_recipe(folder, recipe)
    in_process = min(timed(lambda: plan(recipe)) for _ in range(REPEATS))
    return {
        "plan_seconds_in_process": in_process,
        "plan": _best_of(folder, "plan"),
        "run_with_nothing_to_do": _best_of(folder, "embed"),
    }


def _first_plan(recipe: Recipe, folder: Path) -> dict[str, Any]:
    write_recipe(folder, recipe)
    listed = min(timed(lambda: discover(recipe.source)) for _ in range(REPEATS))
    started = time.perf_counter()
    planned = plan(recipe)
    units = list(work_units(planned, Resources().unit_bytes))
    seconds = time.perf_counter() - started
    return {
        "files": len(planned.files),
        "bytes": planned.size_bytes,
        "units": len(units),
        "discovery_seconds": listed,
        "discovery_and_plan_seconds": round(seconds, 2),
        "files_per_second": round(len(planned.files) / seconds),
        "plan": _best_of(folder, "plan"),
    }


def _name(number: int) -> str:
    return f"{number % 100:02}/{number:05}.jsonl"


def _on_server(recipe: Recipe, server: S3Server) -> Recipe:
    """The recipe with its lake on the server, and its source's files, which are put there."""
    source = recipe.source.model_copy(
        update={"uri": f"s3://{server.new_bucket()}/src", "storage": server.storage}
    )
    remote = Recipe.load(
        recipe.model_dump(mode="json", exclude_defaults=True)
        | {"source": source.model_dump(mode="json"), "lake": lake_on(server)}
    )
    folder = Path(recipe.source.uri)
    names = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    _upload(server, folder, remote, names)
    return remote


def _upload(server: S3Server, folder: Path, remote: Recipe, names: Sequence[str]) -> None:
    server.filesystem().put(
        [str(folder / name) for name in names], [f"{remote.source.uri}/{name}" for name in names]
    )


def write_recipe(folder: Path, recipe: Recipe) -> None:
    """The recipe as a file, for the command line."""
    content = recipe.model_dump(mode="json", exclude_defaults=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(content))


def command_of(folder: Path, name: str) -> dict[str, float]:
    """Seconds and peak memory of one command, its interpreter's start included; no Prefect API."""
    program = Path(sys.executable).parent / "embedlake"
    environment = {
        **os.environ, "PREFECT_API_URL": "", "EMBEDLAKE_HOME": str(folder / "home"),
    }  # fmt: skip
    started = time.perf_counter()
    process = subprocess.Popen(
        [str(program), name, str(folder / "recipe.yaml"), "--json"],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    peak_kib = 0
    while process.poll() is None:  # ru_maxrss would count this process, at the moment of the fork
        peak_kib = max(peak_kib, _high_water_kib(process.pid))
        time.sleep(0.01)
    if process.returncode:
        raise RuntimeError(f"embedlake {name} ended with {process.returncode}")
    return {
        "seconds": round(time.perf_counter() - started, 2),
        "peak_memory_mib": round(peak_kib / 1024),
    }


def _high_water_kib(pid: int) -> int:
    """Most memory the process has held so far; 0 once it has ended."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1])
    return 0


def _best_of(folder: Path, name: str) -> dict[str, float]:
    """The fastest of some runs of a command."""
    return min((command_of(folder, name) for _ in range(REPEATS)), key=lambda run: run["seconds"])
