"""Queries that wait at the same time share a forward pass, and get what they would get alone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embedding_core.encoder.engines import describe_model, load_model, model_spec
from embedding_core.encoder.hashing import HashingEncoder
from embedding_core.errors import ModelError, UsageError
from embedding_core.lake.query.search import Query
from embedding_core.protocols import Vectors
from embedding_core.recipe import Resources
from embedding_core.server.together.batching import Batcher, EncodedQuery
from embedding_core.server.together.gathering import Gathering
from embedding_core.server.together.searches import Search, Searched, search_together
from tests.server.served import made_table, table

SPEC_OF_TABLE = model_spec("hashing", dim=32)
SPEC = model_spec("hashing", dim=64)


class HeldEncoder(HashingEncoder):
    """The hashing encoder, whose first pass waits until it is let go."""

    def __init__(self) -> None:
        super().__init__(describe_model(SPEC).space)
        self.begun, self.go_on = threading.Event(), threading.Event()

    def encode_queries(self, texts: Sequence[str]) -> Vectors:  # type: ignore[override]
        self.begun.set()
        assert self.go_on.wait(60)
        return super().encode_queries(texts)


async def together(texts: Sequence[str], most: int = 64) -> tuple[list[object], list[int]]:
    """What becomes of queries that come while the model works on another, and the passes' sizes."""
    encoder, sizes = HeldEncoder(), list[int]()
    batcher = Batcher(encoder, most, sizes.append)
    first = asyncio.create_task(batcher.encode("the first"))
    await asyncio.to_thread(encoder.begun.wait, 60)
    others = [asyncio.create_task(batcher.encode(text)) for text in texts]
    await asyncio.sleep(0)  # the tasks begin
    encoder.go_on.set()
    results = await asyncio.gather(*others, return_exceptions=True)
    await first
    return list(results), sizes


def test_queries_that_wait_share_a_pass_and_get_their_own_vectors() -> None:
    texts = [f"query number {number}" for number in range(10)]
    results, sizes = asyncio.run(together(texts))
    assert sizes == [1, 10]
    alone = load_model(describe_model(SPEC), SPEC, Resources())
    for text, result in zip(texts, results, strict=True):
        assert isinstance(result, EncodedQuery) and result.n_together == 10
        assert np.array_equal(result.vector, alone.encode_queries([text]))


def test_pass_has_at_most_so_many_queries() -> None:
    _, sizes = asyncio.run(together([f"query {number}" for number in range(10)], most=4))
    assert sizes == [1, 4, 4, 2]


def test_query_without_a_vector_spoils_no_other() -> None:
    results, _ = asyncio.run(together(["good", "half \ud800 a pair", "fine"]))
    good, bad, fine = results
    assert isinstance(good, EncodedQuery) and isinstance(fine, EncodedQuery)
    assert isinstance(bad, UsageError) and "not valid Unicode" in str(bad)


def test_error_of_the_work_is_that_of_all_and_the_next_turn_goes_on() -> None:
    def work(items: Sequence[int]) -> list[int | Exception]:
        if 0 in items:
            raise ModelError("out of order")
        return list(items)

    async def ask() -> list[object]:
        gathering = Gathering[int, int](work, 8, "test")
        first = await asyncio.gather(*(gathering.result(n) for n in (0, 1)), return_exceptions=True)
        return [*first, await gathering.result(2)]

    first, second, third = asyncio.run(ask())
    assert isinstance(first, ModelError) and isinstance(second, ModelError)
    assert third == 2


def test_searches_that_wait_give_what_each_gives_alone(tmp_path: Path) -> None:
    snapshot = table(made_table(tmp_path)).open_to_search()
    encoder = load_model(describe_model(model_spec("hashing", dim=32)), SPEC_OF_TABLE, Resources())
    asked = [Query(k=5), Query(k=5, where="year > 2004"), Query(k=3, hybrid=True), Query(k=5)]
    searches = [
        Search(snapshot, encoder.space, encoder.encode_queries([text]), text, query)
        for text in ("snow melts", "bees carry pollen", "rates rose", "light")
        for query in asked
    ]
    searches.append(replace(searches[0], query=Query(k=5, where="no_such_column = 1")))
    *results, refused = search_together(searches)
    assert isinstance(refused, UsageError), "an error is that of the searches alike"
    for search, result in zip(searches, results, strict=False):
        assert isinstance(result, Searched)
        (alone,) = snapshot.search_vectors(
            search.vector, search.space, search.query, [search.words]
        )
        assert [hit.chunk_id for hit in result.hits] == [hit.chunk_id for hit in alone]
        assert [hit.metadata for hit in result.hits] == [hit.metadata for hit in alone]
        scores = [hit.score for hit in alone]
        assert [hit.score for hit in result.hits] == pytest.approx(scores, abs=1e-6)


def test_item_that_comes_when_the_worker_ends_is_worked_on() -> None:
    async def ask() -> list[int]:
        gathering = Gathering[int, int](list, 8, "test", threads=2)
        return [await gathering.result(number) for number in range(200)]

    assert asyncio.run(ask()) == list(range(200))


def test_whoever_goes_away_keeps_nobody_waiting() -> None:
    async def ask() -> EncodedQuery:
        encoder = HeldEncoder()
        batcher = Batcher(encoder, 8)
        leaving = asyncio.create_task(batcher.encode("goes away"))
        await asyncio.to_thread(encoder.begun.wait, 60)
        leaving.cancel()
        staying = asyncio.create_task(batcher.encode("stays"))
        await asyncio.sleep(0)
        encoder.go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        return await staying

    assert asyncio.run(ask()).n_together == 1
