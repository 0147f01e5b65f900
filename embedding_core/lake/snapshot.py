"""A version of a table, opened once for all the reads of a stage."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import lance
import pyarrow as pa

from embedding_core.errors import LakeError
from embedding_core.lake.query.hits import Hits
from embedding_core.lake.query.search import Query, check_query_space, search_dataset
from embedding_core.lake.schema import (
    RECIPE_KEY,
    VECTOR,
    Cutter,
    index_name,
    metadata_read,
    space_of,
)
from embedding_core.protocols import TextEncoder, Vectors
from embedding_core.records import Space
from embedding_core.sealed import unsealed
from embedding_core.store.untrusted.json_text import read_json

if TYPE_CHECKING:
    from embedding_core.lake.table import Table

INDEX_KEY = "embedlake:index:"
"""Table metadata: how an index is queried, under this and its name. So the settings survive appends
and follow their column when it is renamed."""
QUERY_SETTINGS = ("nprobes", "refine_factor")
"""What a query needs of an index's stored settings."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A version of a table. ``Table.open()`` gives one.

    Reads take it, so that a stage opens the table once and sees one version. Writes take the table
    and open it for each attempt. A change that is made through ``dataset`` (an index, metadata)
    moves the snapshot to the version with the change, as Lance does.
    """

    table: Table
    dataset: lance.LanceDataset

    @property
    def version(self) -> int:
        """Its number."""
        return int(self.dataset.version)

    @property
    def schema(self) -> pa.Schema:
        """All columns, with their metadata."""
        return self.dataset.schema

    @property
    def n_rows(self) -> int:
        """Rows of this version; reads metadata alone."""
        return int(self.dataset.count_rows())

    def newest(self) -> Snapshot:
        """This snapshot while nobody has committed since, else the newest version."""
        with self.table.faults("opening"):
            is_newest = self.dataset.latest_version == self.dataset.version
        return self if is_newest else self.table.open()

    def at(self, attempt: int) -> Snapshot:
        """This snapshot for the first attempt at something, the newest version for later ones."""
        return self if attempt == 1 else self.newest()

    def field(self, column: str) -> pa.Field:
        """A column of the schema. Raises ``LakeError``, naming all, when it is missing."""
        if column not in self.schema.names:
            raise LakeError(
                f"table {self.table.name!r} in {self.table.lake.uri} has no column {column!r}; it "
                f"has {', '.join(self.schema.names)}. If it was dropped by hand, restore a version "
                "of the table that has it"
            )
        return self.schema.field(column)

    def space(self, column: str = VECTOR) -> tuple[str, Space]:
        """``space_id`` and description of a vector column's space; default: that in service."""
        return space_of(self.field(column))

    def recipe_name(self) -> str | None:
        """Name of the recipe that made the table."""
        name = (self.schema.metadata or {}).get(RECIPE_KEY)
        with metadata_read(RECIPE_KEY):
            return name.decode() if name is not None else None

    def cutter(self) -> Cutter | None:
        """What the rows were cut with; None for a table that does not say."""
        return Cutter.of(self.schema)

    def index_settings(self, column: str = VECTOR) -> Mapping[str, Any]:
        """How to query a column's index (``nprobes``, ``refine_factor``, …).

        Empty without an index. Also empty, with a warning, when the settings cannot be read: the
        next run finds them again.
        """
        name = index_name(self.field(column))
        stored = self.dataset.metadata.get(INDEX_KEY + name)
        try:
            settings = unsealed(read_json(stored or "{}"))
        except ValueError:
            log.warning(
                "the stored settings of index %s of %s cannot be read: every row is compared until "
                "the next run tunes it again",
                name, self.dataset.uri,
            )  # fmt: skip
            return {}
        missing = [key for key in QUERY_SETTINGS if not isinstance(settings.get(key), int)]
        if settings and missing:
            log.warning(
                "the stored settings of index %s of %s lack %s: every row is compared until the "
                "next run tunes it again",
                name, self.dataset.uri, " or ".join(QUERY_SETTINGS),
            )  # fmt: skip
        return settings

    def search_many(
        self, queries: Sequence[str], encoder: TextEncoder, query: Query | None = None
    ) -> list[Hits]:
        """Hits of several queries, encoded together, in the queries' order."""
        query = query or Query()
        check_query_space(encoder.space, *self.space(query.column))
        vectors = encoder.encode_queries(queries)  # (n_queries, dim) float32, unit norm
        return self.search_vectors(vectors, encoder.space, query, queries)

    def search_vectors(
        self,
        vectors: Vectors,
        space: Space,
        query: Query | None = None,
        words: Sequence[str] | None = None,
    ) -> list[Hits]:
        """Hits of queries that are vectors of ``space`` already, in their order.

        ``words``: the queries' texts, which the full-text half of a hybrid search looks for.
        """
        query = query or Query()
        check_query_space(space, *self.space(query.column))
        words = [""] * len(vectors) if words is None else words
        settings = self.index_settings(query.column)
        with self.table.faults("searching"):
            return search_dataset(self.dataset, words, vectors, query, settings)


def opened(source: Table | Snapshot) -> Snapshot:
    """The snapshot itself; for a table its newest version."""
    return source if isinstance(source, Snapshot) else source.open()
