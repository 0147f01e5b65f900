"""Opening and making tables: ``Lake`` is the database, ``Table`` one table in it.

A table belongs to one recipe and keeps vectors of one space in service; both are checked on every
opening for writing, so that rows of two recipes or vectors of two spaces never mix.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import lance
import lancedb
import pyarrow as pa

from embedding_core import storage
from embedding_core.errors import LakeError, Transient
from embedding_core.identity import SHOWN_DIGITS, space_id
from embedding_core.lake import schema
from embedding_core.lake.faults import store_faults
from embedding_core.lake.filters import KEYS_PER_SCAN, bind, is_in
from embedding_core.lake.probe import check_conditional_put
from embedding_core.lake.search import Hit, Query, QueryEncoder, check_query_space, search_vectors
from embedding_core.recipe import Recipe
from embedding_core.records import Scalar, Space
from embedding_core.storage import StorageSpec

INDEX_KEY = "embedlake:index"


@dataclass(frozen=True, slots=True)
class FileVersion:
    """A file version that has rows in the table."""

    source_uri: str
    file_key: str


@dataclass(frozen=True, slots=True)
class Lake:
    """A LanceDB database: a local folder or ``s3://bucket/prefix``."""

    uri: str
    storage: StorageSpec = field(default_factory=StorageSpec)

    @classmethod
    def open(cls, uri: str, storage: StorageSpec | None = None) -> Lake:
        """Name the database; nothing is read until a table is opened."""
        return cls(uri.rstrip("/"), storage or StorageSpec())

    def table(self, name: str) -> Table:
        """The table of that name. Raises ``LakeError`` when there is none."""
        table = Table(self, name)
        if not table.exists():
            raise LakeError(
                f"there is no table {name!r} in {self.uri}; run `embedlake embed` with a recipe "
                "that names it, or check lake.uri and lake.table"
            )
        return table

    def options(self) -> dict[str, str]:
        """Lance's storage options for this database."""
        return storage.lance_options(self.storage)


@dataclass(frozen=True, slots=True)
class Table:
    """One table; every read sees the newest committed version."""

    lake: Lake
    name: str

    @property
    def uri(self) -> str:
        """Where the Lance dataset is."""
        return storage.join(self.lake.uri, f"{self.name}.lance")

    def exists(self) -> bool:
        """Whether the table was ever committed."""
        fs = storage.filesystem(self.uri, self.lake.storage)
        with store_faults(f"looking for {self.uri}"):
            return bool(fs.exists(storage.join(self.uri, "_versions")))

    def dataset(self) -> lance.LanceDataset:
        """The newest version of the dataset."""
        with store_faults(f"opening {self.uri}"):
            return lance.dataset(self.uri, storage_options=self.lake.options())

    def create(self, arrow_schema: pa.Schema) -> None:
        """Commit an empty table, after making sure that the store can hold one safely."""
        check_conditional_put(self.lake.uri, self.lake.storage)
        with store_faults(f"creating {self.uri}"):
            lance.write_dataset(
                arrow_schema.empty_table(),
                self.uri,
                schema=arrow_schema,
                mode="create",
                storage_options=self.lake.options(),
            )

    def space(self, column: str = schema.VECTOR) -> tuple[str, Space]:
        """``space_id`` and description of a vector column's space; default: the one in service."""
        return schema.space_of(self._field(column))

    def recipe_name(self) -> str | None:
        """Name of the recipe that made the table."""
        name = (self.dataset().schema.metadata or {}).get(schema.RECIPE_KEY)
        return name.decode() if name is not None else None

    def file_versions(self) -> Iterator[FileVersion]:
        """Each (file, version) that has rows, once per fragment it is in; flat memory."""
        scanner = self.dataset().scanner(columns=["source_uri", "file_key"])
        for batch in scanner.to_batches():
            pairs = pa.Table.from_batches([batch]).group_by(["source_uri", "file_key"])
            for pair in pairs.aggregate([]).to_pylist():
                yield FileVersion(pair["source_uri"], pair["file_key"])

    def present_keys(self, file_keys: Collection[str]) -> set[str]:
        """Which of some file versions have rows, by the scalar index where there is one."""
        dataset, ordered, present = self.dataset(), sorted(file_keys), set[str]()
        for start in range(0, len(ordered), KEYS_PER_SCAN):
            condition = is_in("file_key", ordered[start : start + KEYS_PER_SCAN])
            for batch in dataset.scanner(columns=["file_key"], filter=condition).to_batches():
                present.update(batch.column("file_key").unique().to_pylist())
        return present

    def index_settings(self) -> Mapping[str, Any]:
        """How to query the vector index (``nprobes``, ``refine_factor``, …); empty without one."""
        stored = self.dataset().metadata.get(INDEX_KEY)
        settings: Mapping[str, Any] = json.loads(stored) if stored else {}
        return settings

    def search(
        self,
        words: str,
        encoder: QueryEncoder,
        k: int = 10,
        where: str | None = None,
        params: Mapping[str, Scalar] | None = None,
        exact: bool = False,
        column: str = schema.VECTOR,
    ) -> list[Hit]:
        """The ``k`` chunks nearest to ``words``, best first.

        ``where`` is a SQL filter over the table's columns, applied before the search; write values
        as ``:name`` and give them in ``params``, where they are quoted. ``exact`` goes past the
        index. Raises ``UsageError`` for a bad filter, ``LakeError`` for an encoder of another
        space.
        """
        return self.search_many([words], encoder, k, where, params, exact, column)[0]

    def search_many(
        self,
        queries: Sequence[str],
        encoder: QueryEncoder,
        k: int = 10,
        where: str | None = None,
        params: Mapping[str, Scalar] | None = None,
        exact: bool = False,
        column: str = schema.VECTOR,
    ) -> list[list[Hit]]:
        """``search`` for several queries, encoded together; results in the queries' order."""
        check_query_space(encoder.space, *self.space(column))
        condition = bind(where, params or {}) if where else None
        with store_faults(f"searching {self.uri}"):
            return search_vectors(
                lancedb.connect(self.lake.uri, storage_options=self.lake.options()).open_table(
                    self.name
                ),
                encoder.encode_queries(queries),  # (n_queries, dim) float32, unit norm
                Query(column, k, condition, exact, self.index_settings()),
            )

    def _field(self, column: str) -> pa.Field:
        arrow_schema = self.dataset().schema
        if column not in arrow_schema.names:
            raise LakeError(
                f"table {self.name!r} in {self.lake.uri} has no column {column!r}; it has "
                f"{', '.join(arrow_schema.names)}"
            )
        return arrow_schema.field(column)


def table_of(recipe: Recipe) -> Table:
    """The recipe's table, whether it exists or not."""
    return Table(Lake.open(recipe.lake.uri, recipe.lake.storage), recipe.lake.table)


def ensure_table(recipe: Recipe, space: Space) -> Table:
    """The recipe's table, made when missing, refused when it is another recipe's."""
    table = table_of(recipe)
    if not table.exists():
        try:
            table.create(schema.table_schema(recipe, space))
        except Transient:
            if not table.exists():  # else another run was first, and the owner is checked below
                raise
    check_owner(table, recipe, space)
    return table


def check_owner(table: Table, recipe: Recipe, space: Space) -> None:
    """Raise ``LakeError`` unless the table is this recipe's and holds this space's vectors."""
    where = f"table {table.name!r} in {table.lake.uri}"
    held, held_space = table.space()
    owner = table.recipe_name()
    if owner != recipe.name:
        raise LakeError(
            f"{where} belongs to the recipe {owner!r}, not to {recipe.name!r}; "
            "use another lake.table, or the recipe's own name"
        )
    wanted = space_id(space)
    if held != wanted:
        raise LakeError(
            f"{where} holds vectors of space {held[:SHOWN_DIGITS]} ({held_space.model}), the "
            f"recipe's model gives space {wanted[:SHOWN_DIGITS]} ({space.model}); vectors of two "
            "spaces never mix: use the model in service, or another lake.table for this one"
        )
    columns = schema.table_schema(recipe, space)
    found = table.dataset().schema
    if found.remove_metadata() != columns.remove_metadata():
        raise LakeError(
            f"{where} has other columns than the recipe ({_difference(found, columns)}); metadata "
            "columns are fixed when a table is made: use another lake.table, or the old columns"
        )


def _difference(found: pa.Schema, wanted: pa.Schema) -> str:
    has, wants = ({f"{f.name}: {f.type}" for f in one} for one in (found, wanted))
    extra, missing = sorted(has - wants), sorted(wants - has)
    return f"only in the table: {extra or 'none'}; only in the recipe: {missing or 'none'}"
