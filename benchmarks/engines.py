"""A server kept busy: our client beside the server's own best, and 50 ms farther away.

    python -m benchmarks.engines
    python -m benchmarks.engines --part far --tokens 60000 --turns 3

The server is llama.cpp's, with all-MiniLM-L6-v2 in float32 on one thread; texts are cut from
Python's reference in lengths of a lognormal mix. ``busy``: our client and a plain loop of threads,
which has its best numbers of threads and of texts in a request, found before on some of the texts;
turns alternate. ``far``: our client over a proxy that adds nothing, and over one that adds 50 ms to
each request; with the default token budget, and with an eighth of it, where requests are many.
Medians of all turns. Each part writes ``benchmarks/results/engines-<part>.json``.
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
    parser.add_argument("--part", action="append", choices=list(PARTS), help="default: both")
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="embedlake-bench-") as folder,
        llama_server(write_gguf(Path(folder, "minilm.gguf"))) as url,
    ):
        texts, n_tokens = _texts(arguments.tokens)
        for part in arguments.part or PARTS:
            figures = {"texts": len(texts), "tokens": n_tokens}
            figures |= PARTS[part](url, texts, arguments.turns)
            origin = about("engines", ["xllamacpp", "httpx2", "stamina", "numpy"])
            target = RESULTS / f"engines-{part}.json"
            target.write_text(json.dumps(origin | {"figures": figures}, indent=1) + "\n")
            print(json.dumps(figures, indent=1))


def _texts(n_tokens: int) -> tuple[list[str], int]:
    """Texts of about so many tokens, and how many the model reads of them."""
    tokenizer = describe_model(model_spec(MODEL)).tokenizer
    _, lengths = token_lengths("mix", n_tokens, 256)
    texts = cut_texts("\n".join(topics.values()), tokenizer, lengths)
    return texts, sum(min(n, 256) for n in tokenizer.count(texts))


def _busy(url: str, texts: Sequence[str], n_turns: int) -> dict[str, Any]:
    plain = best_client(url, SERVED, texts[: max(1, round(len(texts) * SAMPLE_SHARE))])
    seconds = _turns({"ours": _ours(url), "plain": plain.encode}, texts, n_turns)
    _check_equal(_ours(url)(texts[:50]), plain.encode(texts[:50]))
    share = _median(seconds["plain"]) / _median(seconds["ours"])
    return {
        "seconds": seconds,
        "plain": {"threads": plain.n_threads, "texts_of_a_request": plain.n_texts},
        "share_of_plain": share,
        "reached": share >= BUSY_SHARE,
    }


def _far(url: str, texts: Sequence[str], n_turns: int) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    with far_away(url, 0.0) as near_url, far_away(url, DELAY_SECONDS) as far_url:
        for budget in (BATCH_TOKENS, BATCH_TOKENS // 8):
            ways = {"near": _ours(near_url, budget), "far": _ours(far_url, budget)}
            seconds = _turns(ways, texts, n_turns)
            lost = 1 - _median(seconds["near"]) / _median(seconds["far"])
            figures[f"batch_tokens_{budget}"] = {
                "seconds": seconds, "lost_share": lost, "reached": lost <= LOST_SHARE,
            }  # fmt: skip
    return figures


PARTS: dict[str, Callable[[str, Sequence[str], int], dict[str, Any]]] = {
    "busy": _busy,
    "far": _far,
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
            taken = time.perf_counter() - started
            print(f"turn {turn} {name}: {taken:.1f} s", flush=True)
            if turn:
                seconds[name].append(taken)
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
