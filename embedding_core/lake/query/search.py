"""Similarity search in the space in service, alone or fused with full-text search.

A query vector of another space is refused: its numbers would mean nothing here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embedding_core.errors import LakeError, UsageError
from embedding_core.identity import SHOWN_DIGITS, space_id
from embedding_core.lake import schema
from embedding_core.lake.damage import homeless_indexes, indexes_of
from embedding_core.lake.faults import LANCE_IO, plain
from embedding_core.lake.filters import bind, column_types, why_refused
from embedding_core.lake.query.hits import Hit, Hits
from embedding_core.recipe import RESERVED_COLUMNS
from embedding_core.records import Scalar, Space
from embedding_core.records.scalars import finite

FUSED_DEPTH = 50
"""Fewest candidates of each kind that a hybrid search fuses."""
RRF_K = 60
"""The constant of reciprocal rank fusion (Cormack, Clarke and Buettcher 2009)."""
MOST_ASKED = 2**31 - 1
"""Most results or partitions of a query: more than Lance can count."""
QUERY_NUMBER = "query_index"
"""Column in which Lance numbers the queries of a batch; a table with such a column has no batches.
"""
_SHOWN = ("chunk_id", "source_uri", "doc_id", "chunk_index", "text")
"""Columns of a hit. Each further column costs a small read for every hit."""


@dataclass(frozen=True, slots=True)
class Query:
    """How to search. Raises ``UsageError`` for a combination that makes no sense."""

    k: int = 10
    """Results per query."""
    where: str | None = None
    """SQL over the table's columns, applied before the search; values stand as ``:name``."""
    params: Mapping[str, Scalar] = field(default_factory=dict)
    """Values of the names in ``where``."""
    exact: bool = False
    """Compare every row, past the index."""
    hybrid: bool = False
    """Fuse with full-text search."""
    nprobes: int | None = None
    """Partitions of the index to look into, instead of the number stored with it."""
    column: str = schema.VECTOR
    """The vector column to search in."""

    def __post_init__(self) -> None:
        if not 1 <= self.k <= MOST_ASKED:
            raise UsageError(f"k is {self.k}; ask for 1 to {MOST_ASKED:,} results")
        if self.nprobes is not None and not 1 <= self.nprobes <= MOST_ASKED:
            raise UsageError(f"nprobes is {self.nprobes}; look into 1 to {MOST_ASKED:,} partitions")
        if self.nprobes is not None and self.exact:
            raise UsageError("an exact search uses no index; give either exact or nprobes")
        if self.params and self.where is None:
            raise UsageError("params give values for a filter, and there is none; give where")

    def condition(self, arrow_schema: pa.Schema) -> str | None:
        """``where`` with its values quoted, as values of the columns of a table."""
        return bind(self.where, self.params, column_types(arrow_schema)) if self.where else None


def check_query_space(query_space: Space, table_id: str, table_space: Space) -> None:
    """Raise ``LakeError`` unless vectors of the query's space can be compared with the table's."""
    query_id = space_id(query_space)
    if query_id != table_id:
        raise LakeError(
            f"the query is in space {query_id[:SHOWN_DIGITS]} ({query_space.model}), the table in "
            f"space {table_id[:SHOWN_DIGITS]} ({table_space.model}); they differ in "
            f"{schema.difference(table_space, query_space)}. Encode the query with the model that "
            "made the table"
        )


def search_dataset(
    dataset: lance.LanceDataset,
    words: Sequence[str],
    vectors: np.ndarray,
    query: Query,
    index_settings: Mapping[str, Any],
) -> list[Hits]:
    """The best chunks for each query, best first.

    ``vectors``: (n_queries, dim) float32, unit norm, of ``words``. ``index_settings`` say how to
    query the vector index; without them every row is compared. Raises ``UsageError`` for a bad
    filter, and for a hybrid search of a table without a full-text index.
    """
    legs = _Legs(dataset, query, query.condition(dataset.schema), index_settings)
    if not query.hybrid:
        return list(map(_hits, legs.by_vectors(vectors, query.k)))
    if schema.FULL_TEXT_INDEX not in {index.name for index in indexes_of(dataset)}:
        raise UsageError(
            "the table has no full-text index, which a hybrid search needs; set index.full_text: "
            "true in the recipe, then let a run make it",
            action="embed",
        )
    depth = max(query.k, FUSED_DEPTH)
    nearest_by_query = legs.by_vectors(vectors, depth)
    return [
        Hits(_hits(_fused(text, nearest, legs.by_text(text, depth)))[: query.k])
        for text, nearest in zip(words, nearest_by_query, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class _Legs:
    """The two kinds of search over one version of a table."""

    dataset: lance.LanceDataset
    query: Query
    condition: str | None
    index_settings: Mapping[str, Any]

    def by_vectors(self, vectors: np.ndarray, k: int) -> list[pa.Table]:
        """The nearest rows of each with ``_distance`` (cosine) and ``_rowid``, nearest first.

        Several are searched in one pass over the rows: with 16, a sixth of the time for each.
        """
        if len(vectors) > 1 and QUERY_NUMBER not in self.dataset.schema.names:
            rows = self._nearest(vectors, k)
            numbers = rows.column(QUERY_NUMBER)
            rows = rows.drop_columns(QUERY_NUMBER)
            return [rows.filter(pc.equal(numbers, number)) for number in range(len(vectors))]
        return [self._nearest(vector, k) for vector in vectors]

    def _nearest(self, vectors: np.ndarray, k: int) -> pa.Table:
        """Rows for a vector, (dim,), or for several, (n_queries, dim), then with their number."""
        nearest = {"column": self.query.column, "q": vectors, "k": k, "metric": "cosine"}
        return self._rows(["_distance"], nearest=nearest | self._how_to_probe())

    def by_text(self, words: str, k: int) -> pa.Table:
        """The rows that hold most of the words, with ``_score`` (BM25) and ``_rowid``."""
        match = {"query": words, "columns": ["text"]}
        return self._rows(["_score"], full_text_query=match, limit=k)

    def _how_to_probe(self) -> dict[str, object]:
        tuned = [self.index_settings.get(name) for name in ("nprobes", "refine_factor")]
        if self.query.exact or not all(isinstance(number, int) for number in tuned):
            return {"use_index": False}
        nprobes, refine_factor = tuned
        return {"nprobes": self.query.nprobes or nprobes, "refine_factor": refine_factor}

    def _rows(self, computed: list[str], **search: Any) -> pa.Table:
        columns = [*_SHOWN, *metadata_columns(self.dataset.schema)]
        try:
            return self.dataset.to_table(
                columns=[*columns, *computed],
                filter=self.condition,
                prefilter=True,
                with_row_id=True,
                **search,
            )
        except ValueError as error:  # how Lance reports a filter that does not parse or fit
            if self.condition is None or LANCE_IO in str(error) or homeless_indexes(self.dataset):
                raise
            if self._filter_is_planned():
                self._read_all([*columns, self.query.column])
            where = self.query.where or ""
            refused = why_refused(where, self.condition, self.dataset.schema, plain(error))
            raise UsageError(refused) from error

    def _filter_is_planned(self) -> bool:
        """Whether the filter parses and fits the columns: then it was a row that stopped it."""
        try:
            self.dataset.scanner(filter=self.condition).explain_plan()
        except ValueError:
            return False
        return True

    def _read_all(self, columns: list[str]) -> None:
        """Raise what Lance does where a data file cannot be decoded."""
        for _ in self.dataset.to_batches(columns=columns):
            pass


def metadata_columns(arrow_schema: pa.Schema) -> list[str]:
    """Columns that a recipe declared, its chunk strategy has, or someone added."""
    return [
        name
        for name in arrow_schema.names
        if name not in RESERVED_COLUMNS and not schema.is_vector_column(name)
    ]


def _fused(words: str, by_vector: pa.Table, by_text: pa.Table) -> pa.Table:
    """Both rankings as one, by reciprocal ranks, best first."""
    from lancedb.rerankers import RRFReranker  # a second to import, and only this needs LanceDB

    return RRFReranker(RRF_K).rerank_hybrid(words, by_vector, by_text)


def _hits(rows: pa.Table) -> Hits:
    return Hits(_hit(row) for row in rows.to_pylist())


def _hit(row: Mapping[str, Any]) -> Hit:
    metadata = {
        name: finite(value)
        for name, value in row.items()
        if name not in _SHOWN and not name.startswith("_")
    }
    fused = row.get("_relevance_score")
    return Hit(
        score=1.0 - row["_distance"] if fused is None else fused,  # distance: 1 - cosine
        chunk_id=row["chunk_id"],
        source_uri=row["source_uri"],
        doc_id=row["doc_id"],
        chunk_index=row["chunk_index"],
        text=row["text"],
        metadata=metadata,
    )
