"""Searches that wait at the same time and ask alike are made in one pass over the table."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from embedding_core.errors import EmbedlakeError
from embedding_core.lake.query.hits import Hits
from embedding_core.lake.query.search import Query
from embedding_core.lake.snapshot import Snapshot
from embedding_core.protocols import Vectors
from embedding_core.records import Space


@dataclass(frozen=True, slots=True)
class Search:
    """A query that is encoded, and where to look for it."""

    snapshot: Snapshot
    space: Space
    """The space of the vector."""
    vector: Vectors
    """(1, dim) float32, unit norm."""
    words: str
    query: Query

    def is_like(self, other: Search) -> bool:
        """Whether both can be made in one pass: they differ in their words and vectors alone."""
        return (
            self.snapshot is other.snapshot
            and self.space == other.space
            and self.query == other.query
        )


@dataclass(frozen=True, slots=True)
class Searched:
    """What a search gave, and what it took."""

    hits: Hits
    seconds: float
    """The pass took so long, for all its searches."""


def search_together(searches: Sequence[Search]) -> list[Searched | Exception]:
    """The hits of each search, in their order; an error is that of the searches alike."""
    results: dict[int, Searched | Exception] = {}
    for group in _alike(searches):
        first, started = searches[group[0]], time.perf_counter()
        vectors = np.concatenate([searches[number].vector for number in group])
        words = [searches[number].words for number in group]
        try:
            hits_by_search = first.snapshot.search_vectors(vectors, first.space, first.query, words)
        except EmbedlakeError as error:
            results |= dict.fromkeys(group, error)
            continue
        seconds = time.perf_counter() - started
        results |= {
            number: Searched(hits, seconds)
            for number, hits in zip(group, hits_by_search, strict=True)
        }
    return [results[number] for number in range(len(searches))]


def _alike(searches: Sequence[Search]) -> list[list[int]]:
    """Numbers of searches, those that are alike together."""
    groups: list[list[int]] = []
    for number, search in enumerate(searches):
        for group in groups:
            if search.is_like(searches[group[0]]):
                group.append(number)
                break
        else:
            groups.append([number])
    return groups
