"""A server kept busy: our client beside the server's own best, and 50 ms farther away.

    python -m benchmarks.engines
    python -m benchmarks.engines --tokens 20000 --turns 1

The server is llama.cpp's, with all-MiniLM-L6-v2 in float32 on one thread; texts are cut from
Python's reference in lengths of a lognormal mix. ``busy``: our client and a plain loop of threads,
which has its best numbers of threads and of texts in a request, found before on some of the texts;
turns alternate. ``far``: our client over a proxy that adds nothing, and over one that adds 50 ms to
each request; with the default token budget, and with an eighth of it, where requests are many.
Medians of all turns. Writes ``benchmarks/results/engines.json``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np

from benchmarks.engine_cases.far_away import far_away
from benchmarks.engine_cases.plain_client import best_client
from benchmarks.machine import RESULTS, about
from embedding_core.encoder.bench.workloads import cut_texts, token_lengths
from embedding_core.encoder.engines import describe_model, load_model, model_spec
from embedding_core.encoder.remote.encoder import BATCH_TOKENS
from embedding_core.protocols import Vectors
from embedding_core.recipe import Resources
from tests.llama import MODEL, SERVED, llama_server, write_gguf

DELAY_SECONDS = 0.05
BUSY_SHARE = 0.95
"""Of the plain client's throughput that ours must reach."""
LOST_SHARE = 0.05
"""Of the throughput that may be lost to the delay."""
SAMPLE_SHARE = 0.2
"""Of the texts on which the plain client's numbers are chosen."""

Encode = Callable[[Sequence[str]], Vectors]


def main() -> None:
    """Measure, compare with the targets, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=120_000, help="tokens of a turn")
    parser.add_argument("--turns", type=int, default=5)
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="embedlake-bench-") as folder,
        llama_server(write_gguf(Path(folder, "minilm.gguf"))) as url,
    ):
        figures = _measured(url, arguments.tokens, arguments.turns)
    origin = about("engines", ["xllamacpp", "httpx2", "stamina", "numpy"])
    target = RESULTS / "engines.json"
    target.write_text(json.dumps(origin | {"figures": figures}, indent=1) + "\n")
    print(json.dumps(figures, indent=1))


def _measured(url: str, n_tokens: int, n_turns: int) -> dict[str, Any]:
    tokenizer = describe_model(model_spec(MODEL)).tokenizer
    _, lengths = token_lengths("mix", n_tokens, 256)
    texts = cut_texts("\n".join(topics.values()), tokenizer, lengths)
    total = sum(min(n, 256) for n in tokenizer.count(texts))
    plain = best_client(url, SERVED, texts[: max(1, round(len(texts) * SAMPLE_SHARE))])
    busy = _turns({"ours": _ours(url), "plain": plain.encode}, texts, n_turns)
    _check_equal(_ours(url)(texts[:50]), plain.encode(texts[:50]))
    far: dict[str, Any] = {}
    with far_away(url, 0.0) as near_url, far_away(url, DELAY_SECONDS) as far_url:
        for budget in (BATCH_TOKENS, BATCH_TOKENS // 8):
            ways = {"near": _ours(near_url, budget), "far": _ours(far_url, budget)}
            seconds = _turns(ways, texts, n_turns)
            lost = 1 - _median(seconds["near"]) / _median(seconds["far"])
            far[str(budget)] = {
                "seconds": seconds, "lost_share": lost, "reached": lost <= LOST_SHARE,
            }  # fmt: skip
    share = _median(busy["plain"]) / _median(busy["ours"])
    return {
        "texts": len(texts),
        "tokens": total,
        "busy": {
            "seconds": busy,
            "tokens_per_second": {way: total / _median(taken) for way, taken in busy.items()},
            "plain": {"threads": plain.n_threads, "texts_of_a_request": plain.n_texts},
            "share_of_plain": share,
            "reached": share >= BUSY_SHARE,
        },
        "far": far,
    }


def _ours(url: str, batch_tokens: int | None = None) -> Encode:
    model = model_spec(url, tokenizer=MODEL)
    info = describe_model(model)
    return load_model(info, model, Resources(batch_tokens=batch_tokens)).encode_documents


def _turns(
    ways: Mapping[str, Encode], texts: Sequence[str], n_turns: int
) -> dict[str, list[float]]:
    """Seconds of each turn of each way; the ways take turns, and begin with one that is not
    counted."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(n_turns + 1):
        for name, encode in ways.items():
            started = time.perf_counter()
            encode(texts)
            if turn:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def _check_equal(ours: Vectors, plain: np.ndarray) -> None:
    unit = plain / np.linalg.norm(plain, axis=1, keepdims=True)
    worst = float((ours * unit).sum(axis=1).min())
    if worst < 0.999:
        raise SystemExit(f"the clients got different vectors: cosine {worst:.4f}")


def _median(values: Sequence[float]) -> float:
    return statistics.median(values)


if __name__ == "__main__":
    main()
