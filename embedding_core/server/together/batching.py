"""Queries that wait at the same time go through the model together."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from embedding_core.encoder.base import InvalidText, TextsWithoutVector
from embedding_core.errors import UsageError
from embedding_core.protocols import TextEncoder, Vectors
from embedding_core.server.together.gathering import Gathering


@dataclass(frozen=True, slots=True)
class EncodedQuery:
    """The vector of a query, and what it took."""

    vector: Vectors
    """(1, dim) float32, unit norm."""
    seconds: float
    """The forward pass took so long, for all its queries."""
    n_together: int
    """Queries of that forward pass."""


class Batcher:
    """A model with the thread that it runs on."""

    def __init__(
        self, encoder: TextEncoder, most: int, observe: Callable[[int], object] = lambda _n: None
    ) -> None:
        """``most``: queries in one forward pass; ``observe`` is told how many each had."""
        self.encoder = encoder
        self._observe = observe
        self._queries = Gathering[str, EncodedQuery](self._encoded, most, "model")

    async def encode(self, words: str) -> EncodedQuery:
        """The vector of a query. Raises ``UsageError`` for a text that has none."""
        return await self._queries.result(words)

    def _encoded(self, texts: Sequence[str]) -> list[EncodedQuery | Exception]:
        """Encode texts together; each by itself where one of them has no vector."""
        started = time.perf_counter()
        try:
            vectors = self.encoder.encode_queries(texts)  # (n_texts, dim)
        except (InvalidText, TextsWithoutVector) as error:
            if len(texts) > 1:
                return [outcome for text in texts for outcome in self._encoded([text])]
            why = error.why if isinstance(error, InvalidText) else error.detail
            return [UsageError(f"the query has no vector: {why}")]
        seconds = time.perf_counter() - started
        self._observe(len(texts))
        return [EncodedQuery(row[None, :], seconds, len(texts)) for row in vectors]
