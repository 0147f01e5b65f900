"""A million texts streamed: what `Encoder.encode_stream` holds in memory beyond the model.

    python -m benchmarks.stream --n-texts 1000000

A small random Qwen3 checkpoint, because memory depends on the batches, not on how long the model
takes for them. The process is looked at twenty times a second, after a first pass over a hundred
texts has loaded everything. Writes ``benchmarks/results/stream.json``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.encode import resident_peak
from benchmarks.machine import RESULTS, about
from embedding_core import Encoder
from tests.checkpoints import build_qwen3

TEXTS_PER_BATCH = 5_000


def main() -> None:
    """Stream the texts, write the result, print it."""
    n_texts = _arguments().n_texts
    origin = about("stream", ("torch", "transformers", "pyarrow"))
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = build_qwen3(Path(folder), num_hidden_layers=1)
        encoder = Encoder.load(str(checkpoint), dtype="fp32", device="cpu")
        encoder.encode_documents([f"warm {number}" for number in range(100)])
        started, n_rows, n_tokens = time.perf_counter(), 0, 0
        with resident_peak() as peak_bytes:
            for batch in encoder.encode_stream(_batches(n_texts)):
                n_rows += batch.num_rows
                n_tokens += sum(batch.column("n_tokens").to_pylist())
    result = origin | {
        "texts": n_rows,
        "tokens": n_tokens,
        "seconds": round(time.perf_counter() - started, 1),
        "peak_bytes_beyond_the_loaded_process": peak_bytes(),
    }
    (RESULTS / "stream.json").write_text(json.dumps(result, indent=1) + "\n")
    print(f"{n_rows:,} texts, {n_tokens:,} tokens: {peak_bytes() / 2**20:.0f} MiB beyond the model")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--n-texts", type=int, default=1_000_000)
    return parser.parse_args()


def _batches(n_texts: int) -> Iterator[list[str]]:
    for start in range(0, n_texts, TEXTS_PER_BATCH):
        end = min(start + TEXTS_PER_BATCH, n_texts)
        yield [f"note {number}: delivered on time" for number in range(start, end)]


if __name__ == "__main__":
    main()
