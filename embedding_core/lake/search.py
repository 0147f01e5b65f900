"""Similarity search in the space in service, through LanceDB.

A query vector of another space is refused: its numbers would mean nothing here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from embedding_core.errors import LakeError, UsageError
from embedding_core.identity import SHOWN_DIGITS, space_id
from embedding_core.lake import schema
from embedding_core.recipe import RESERVED_COLUMNS
from embedding_core.records import Scalar, Space


class QueryEncoder(Protocol):
    """What search needs of an encoder."""

    space: Space

    def encode_queries(self, texts: Sequence[str]) -> np.ndarray:
        """float32 (n, dim), unit norm, with the query prompt."""
        ...


@dataclass(frozen=True, slots=True)
class Hit:
    """One chunk found."""

    score: float
    """Cosine similarity to the query, -1 to 1."""
    chunk_id: str
    source_uri: str
    doc_id: str
    chunk_index: int
    text: str
    metadata: Mapping[str, Scalar]
    """The declared metadata columns."""


@dataclass(frozen=True, slots=True)
class Query:
    """How to search, apart from what for."""

    column: str
    """The vector column to search in."""
    k: int
    """Results per query."""
    condition: str | None
    """SQL with its values already quoted, applied before the search."""
    exact: bool
    """Compare every row, past the index."""
    index_settings: Mapping[str, Any]
    """How to query the vector index; empty when there is none."""


def search_vectors(opened: Any, vectors: np.ndarray, query: Query) -> list[list[Hit]]:
    """The nearest chunks of an opened LanceDB table for each vector, best first.

    ``vectors``: (n_queries, dim) float32, unit norm. Raises ``UsageError`` for a bad filter.
    """
    if query.k < 1:
        raise UsageError(f"k is {query.k}; ask for at least 1 result")
    return [_search_one(opened, vector, query) for vector in vectors]


def check_query_space(asked: Space, held_id: str, held: Space) -> None:
    """Raise ``LakeError`` unless vectors of ``asked`` may be compared with those held."""
    asked_id = space_id(asked)
    if asked_id != held_id:
        raise LakeError(
            f"the query is in space {asked_id[:SHOWN_DIGITS]} ({asked.model}), the table in space "
            f"{held_id[:SHOWN_DIGITS]} ({held.model}); encode the query with the model that made "
            "the table"
        )


def _search_one(opened: Any, vector: np.ndarray, query: Query) -> list[Hit]:
    columns = [name for name in opened.schema.names if not name.startswith(schema.VECTOR)]
    built = (
        opened.search(vector, vector_column_name=query.column)
        .distance_type("cosine")
        .select([*columns, "_distance"])
        .limit(query.k)
    )
    if query.condition is not None:
        built = built.where(query.condition, prefilter=True)
    settings = query.index_settings
    if query.exact or not settings:
        built = built.bypass_vector_index()
    else:
        built = built.nprobes(settings["nprobes"]).refine_factor(settings["refine_factor"])
    try:
        return [_hit(row) for row in built.to_list()]
    except ValueError as error:  # how LanceDB reports a filter that does not parse or fit
        if query.condition is None:
            raise
        raise UsageError(f"the filter {query.condition!r} cannot be used: {error}") from error


def _hit(row: Mapping[str, Any]) -> Hit:
    metadata = {
        name: value
        for name, value in row.items()
        if name not in RESERVED_COLUMNS and name != "_distance"
    }
    return Hit(
        score=1.0 - row["_distance"],  # Lance's cosine distance is 1 - cosine similarity
        chunk_id=row["chunk_id"],
        source_uri=row["source_uri"],
        doc_id=row["doc_id"],
        chunk_index=row["chunk_index"],
        text=row["text"],
        metadata=metadata,
    )
