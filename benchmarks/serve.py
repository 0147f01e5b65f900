"""How a server answers: alone, under load with and without batches, while releases are switched.

    python -m benchmarks.serve
    python -m benchmarks.serve --seconds 5 --questions 50 --switches 2     a try, nothing is written

Python's language reference in a table with two spaces of all-MiniLM-L6-v2; the server is a process
of its own, the clients are connections of another. Every answer is compared with what its space
answers alone, so hits of two spaces in one answer would show. Writes
``benchmarks/results/serve.json``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import RESULTS, ROOT, about
from benchmarks.serve_cases.clients import Asked, Client, Load, load
from benchmarks.serve_cases.corpus import TABLE, made_table, questions
from embedding_core.lake.spaces.switching import promote, rollback
from embedding_core.lake.table import table_of
from embedding_core.recipe import Recipe

TOGETHER, ALONE = 64, 1
"""Queries in a forward pass: as a server does it, and without batches."""
SAME_SCORE = 2e-3
"""Scores of one query differ by less, whoever shares its forward pass: half precision."""

Expected = dict[tuple[str, str], list[float]]
"""Scores of the hits by query and space."""


def main() -> None:
    """Measure, write the result unless it is a try, print it."""
    asked = _arguments()
    origin = about("serve", ("fastapi", "uvicorn", "lancedb", "pylance", "torch", "transformers"))
    with tempfile.TemporaryDirectory() as folder:
        path, column = made_table(Path(folder))
        result = origin | _measured(path, column, asked)
    if asked.seconds >= 60:
        (RESULTS / "serve.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def _measured(path: Path, column: str, asked: argparse.Namespace) -> dict[str, Any]:
    queries, clients, seconds = questions(), asked.clients, asked.seconds
    with _server(path, TOGETHER) as url:
        expected = asyncio.run(_expected(url, queries, column))
        alone = asyncio.run(_alone(url, queries, asked.questions))
        batched = asyncio.run(_loaded(url, queries, clients, seconds))
        switched, seen = asyncio.run(
            _switched(url, queries, clients, seconds, path, column, asked.switches)
        )
    with _server(path, ALONE) as url:
        unbatched = asyncio.run(_loaded(url, queries, clients, seconds))
    rows = table_of(Recipe.load(path)).open().n_rows
    return {
        "rows": rows,
        "clients": clients,
        "one_client": _beyond_the_model(alone),
        "batched": _summary(batched, expected),
        "unbatched": _summary(unbatched, expected),
        "batching_gains": round(_rate(batched) / _rate(unbatched), 2),
        "while_switched": _summary(seen, expected) | switched,
    }


@contextmanager
def _server(path: Path, together: int) -> Iterator[str]:
    """A server's URL while the context lasts."""
    command = [sys.executable, "-m", "benchmarks.serve_cases.program", str(path), str(together)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait()


async def _expected(url: str, queries: Sequence[str], column: str) -> Expected:
    """What each space answers when nobody else asks. Both models are loaded after that."""
    scores: Expected = {}
    async with Client(url, TABLE) as client:
        for query in queries:
            for searched in ("vector", column):
                answer = (await client.ask(query, column=searched)).answer
                scores[query, answer["space_id"]] = _scores(answer)
    return scores


async def _alone(url: str, queries: Sequence[str], n_questions: int) -> list[Asked]:
    async with Client(url, TABLE) as client:
        return [await client.ask(queries[n % len(queries)]) for n in range(n_questions)]


async def _loaded(url: str, queries: Sequence[str], n_clients: int, seconds: float) -> Load:
    end = time.perf_counter() + seconds
    return await load(url, TABLE, queries, n_clients, lambda: time.perf_counter() < end)


async def _switched(
    url: str,
    queries: Sequence[str],
    n_clients: int,
    seconds: float,
    path: Path,
    column: str,
    n_switches: int,
) -> tuple[dict[str, Any], Load]:
    """Promotes and rollbacks, as many of each, spread over the time in which clients ask."""
    table, done = table_of(Recipe.load(path)), asyncio.Event()

    async def switch() -> None:
        for _ in range(n_switches):
            await asyncio.sleep(seconds / n_switches / 2)
            await asyncio.to_thread(promote, table, column, "benchmark")
            await asyncio.sleep(seconds / n_switches / 2)
            await asyncio.to_thread(rollback, table, "benchmark")
        done.set()

    asking = load(url, TABLE, queries, n_clients, lambda: not done.is_set())
    seen, _ = await asyncio.gather(asking, switch())
    return {"promotes": n_switches, "rollbacks": n_switches}, seen


def _scores(answer: dict[str, Any]) -> list[float]:
    return [hit["score"] for hit in answer["hits"]]


def _beyond_the_model(asked: Sequence[Asked]) -> dict[str, Any]:
    """Milliseconds of an answer, in all and beyond the forward pass."""
    total = np.array([one.seconds for one in asked]) * 1_000
    model = np.array([one.answer["seconds"]["model"] for one in asked]) * 1_000
    return {
        "questions": len(asked),
        "errors": sum(one.status != 200 for one in asked),
        "total_ms": _percentiles(total),
        "beyond_the_model_ms": _percentiles(total - model),
    }


def _percentiles(milliseconds: np.ndarray) -> dict[str, float]:
    return {f"p{n}": round(float(np.percentile(milliseconds, n)), 2) for n in (50, 99)}


def _rate(seen: Load) -> float:
    return len(seen.asked) / seen.seconds


def _summary(seen: Load, expected: Expected) -> dict[str, Any]:
    """Answers a second, errors, and answers that are not those of their space."""
    good = [one for one in seen.asked if one.status == 200]
    mixed = sum(not _is_of_its_space(one, expected) for one in good)
    return {
        "seconds": round(seen.seconds, 1),
        "answers": len(seen.asked),
        "answers_per_second": round(_rate(seen), 1),
        "errors": len(seen.errors) + len(seen.asked) - len(good),
        "not_of_one_space": mixed,
        "by_space": dict(Counter(one.answer["space_id"][:12] for one in good)),
        "ms": _percentiles(np.array([one.seconds for one in seen.asked]) * 1_000),
    }


def _is_of_its_space(asked: Asked, expected: Expected) -> bool:
    scores = expected[asked.query, asked.answer["space_id"]]
    return bool(np.allclose(_scores(asked.answer), scores, atol=SAME_SCORE))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each load")
    parser.add_argument("--questions", type=int, default=500, help="of the single client")
    parser.add_argument("--switches", type=int, default=20, help="promotes, and rollbacks")
    return parser.parse_args()


if __name__ == "__main__":
    main()
