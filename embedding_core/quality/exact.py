"""Exact search in one pass over a corpus: for every query the best documents, by their best chunk.

Knows vectors and document ids. Memory is bounded by the queries, the depth and one batch of rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedding_core.plurals import counted
from embedding_core.protocols import Vectors

DEPTH = 100
"""Ranked documents per query: recall@100 needs that many."""
QUERIES_AT_ONCE = 256
"""Queries compared with a batch at once: 8 MiB of float32 for 8,192 rows."""

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Ranking:
    """The best documents of each query, in the queries' order."""

    documents: list[list[str]]
    """Per query at most ``DEPTH`` different documents, best first; an empty list for a query
    without a vector."""
    scores: Vectors
    """(n_queries, DEPTH) their cosine similarities, descending; -inf where there are no more."""


@dataclass(frozen=True, slots=True)
class ByDocument:
    """The rows of a batch put together by document."""

    documents: list[str]
    order: Integers
    """(n_rows,) the batch's rows, those of a document next to each other."""
    starts: Integers
    """(n_documents,) where each document's rows start in ``order``."""

    @classmethod
    def of(cls, doc_ids: pa.StringArray) -> ByDocument:
        """Group a batch that has at least one row."""
        encoded = doc_ids.dictionary_encode()
        codes = encoded.indices.to_numpy()
        order = np.argsort(codes, kind="stable")
        starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
        return cls(encoded.dictionary.to_pylist(), order, starts)


class ExactRanking:
    """Collects the best documents for ``queries``, (n_queries, dim) float32, batch by batch."""

    def __init__(self, queries: Vectors) -> None:
        norms = np.linalg.norm(queries, axis=1, keepdims=True)
        self._usable = np.isfinite(norms[:, 0]) & (norms[:, 0] > 0)
        self._queries = np.where(self._usable[:, None], queries, 0) / np.where(norms > 0, norms, 1)
        self._queries[~self._usable] = 0
        self._scores = np.full((len(queries), DEPTH), -np.inf, np.float32)
        self._numbers = np.full((len(queries), DEPTH), -1, np.int64)
        self._names: dict[int, str] = {}  # of the documents that are among some query's best
        self._next = 0

    def add(self, rows: ByDocument, vectors: Vectors) -> None:
        """Take in the rows of a batch; ``vectors`` (n_rows, dim), a row of NaN is never found."""
        if vectors.shape[1] != self._queries.shape[1]:
            raise ValueError(
                f"rows of {counted(vectors.shape[1], 'dimension')} for queries of "
                f"{self._queries.shape[1]}"
            )
        ordered = vectors[rows.order]
        norms = np.linalg.norm(ordered, axis=1)  # (n_rows,)
        usable = np.isfinite(norms) & (norms > 0)
        unit = np.where(usable[:, None], ordered, 0) / np.where(usable, norms, 1)[:, None]
        numbers = self._numbered(rows.documents)
        for start in range(0, len(self._queries), QUERIES_AT_ONCE):
            block = slice(start, start + QUERIES_AT_ONCE)
            scores = self._queries[block] @ unit.T  # (n_queries, n_rows)
            scores[:, ~usable] = -np.inf
            self._merge(block, np.maximum.reduceat(scores, rows.starts, axis=1), numbers)
        self._forget()

    def ranking(self) -> Ranking:
        """The best documents of all batches so far."""
        scores = np.where(self._usable[:, None], self._scores, -np.inf).astype(np.float32)
        documents = [
            [self._names[number] for number in row[valid].tolist()]
            for row, valid in zip(self._numbers, scores > -np.inf, strict=True)
        ]
        return Ranking(documents, scores)

    def _numbered(self, documents: list[str]) -> Integers:
        """A number for each document; a document among the best so far keeps its number."""
        best = {name: number for number, name in self._names.items()}
        numbers = np.empty(len(documents), np.int64)
        for index, name in enumerate(documents):
            number = best.get(name)
            if number is None:
                number = self._next
                self._next += 1
                self._names[number] = name
            numbers[index] = number
        return numbers

    def _merge(self, block: slice, scores: Vectors, numbers: Integers) -> None:
        """Put a batch's documents, scores (n_queries, n_documents), among the best so far."""
        n_documents = scores.shape[1]
        if n_documents > DEPTH:
            best = np.argpartition(scores, n_documents - DEPTH, axis=1)[:, -DEPTH:]
        else:
            best = np.broadcast_to(np.arange(n_documents), scores.shape)
        scores = np.concatenate([self._scores[block], np.take_along_axis(scores, best, 1)], axis=1)
        numbers = np.concatenate([self._numbers[block], numbers[best]], axis=1)
        order = np.lexsort((-scores, numbers), axis=1)  # by document, its best score first
        scores = np.take_along_axis(scores, order, 1)
        numbers = np.take_along_axis(numbers, order, 1)
        scores[:, 1:][numbers[:, 1:] == numbers[:, :-1]] = -np.inf
        order = np.argsort(-scores, axis=1, kind="stable")[:, :DEPTH]
        self._scores[block] = np.take_along_axis(scores, order, 1)
        self._numbers[block] = np.take_along_axis(numbers, order, 1)

    def _forget(self) -> None:
        """Drop the names of documents that are among no query's best."""
        alive = np.unique(self._numbers[self._scores > -np.inf]).tolist()
        self._names = {number: self._names[number] for number in alive}
