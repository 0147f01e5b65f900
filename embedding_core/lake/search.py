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


def search_vectors(
    opened: Any,
    vectors: np.ndarray,
    k: int,
    condition: str | None,
    exact: bool,
    settings: Mapping[str, Any],
) -> list[list[Hit]]:
    """The ``k`` nearest chunks of an opened LanceDB table for each vector, best first.

    ``vectors``: (n_queries, dim) float32, unit norm. ``condition`` is SQL with its values already
    quoted, applied before the search. ``settings`` say how to query the vector index; without
    them, or with ``exact``, every row is compared.
    """
    if k < 1:
        raise UsageError(f"k is {k}; ask for at least 1 result")
    return [_search_one(opened, vector, k, condition, exact, settings) for vector in vectors]


def check_query_space(asked: Space, held_id: str, held: Space) -> None:
    """Raise ``LakeError`` unless vectors of ``asked`` may be compared with those held."""
    asked_id = space_id(asked)
    if asked_id != held_id:
        raise LakeError(
            f"the query is in space {asked_id[:SHOWN_DIGITS]} ({asked.model}), the table in space "
            f"{held_id[:SHOWN_DIGITS]} ({held.model}); encode the query with the model that made "
            "the table"
        )


def _search_one(
    opened: Any,
    vector: np.ndarray,
    k: int,
    condition: str | None,
    exact: bool,
    settings: Mapping[str, Any],
) -> list[Hit]:
    columns = [name for name in opened.schema.names if not name.startswith(schema.VECTOR)]
    query = opened.search(vector, vector_column_name=schema.VECTOR).distance_type("cosine")
    query = query.select([*columns, "_distance"]).limit(k)
    if condition is not None:
        query = query.where(condition, prefilter=True)
    if exact or not settings:
        query = query.bypass_vector_index()
    else:
        query = query.nprobes(settings["nprobes"]).refine_factor(settings["refine_factor"])
    try:
        return [_hit(row) for row in query.to_list()]
    except ValueError as error:
        if condition is None:
            raise
        raise UsageError(f"the filter {condition!r} cannot be used: {error}") from error


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
