"""Opening and reading tables: ``Lake`` is the database, ``Table`` one table in it."""

from __future__ import annotations

import html
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cache

import lance
import pyarrow as pa

from embedding_core.errors import LakeError, Transient
from embedding_core.lake import schema
from embedding_core.lake.damage import DamagedManifest, damage_of, unreadable_rows
from embedding_core.lake.disk.flushing import COUNTED_DOWN_DIGITS, LARGEST_NUMBER, flushed
from embedding_core.lake.faults import is_panic, plain, store_fault, store_faults
from embedding_core.lake.query.hits import Hits
from embedding_core.lake.query.search import Query
from embedding_core.lake.snapshot import Snapshot
from embedding_core.protocols import TextEncoder, Vectors
from embedding_core.recipe import Recipe
from embedding_core.records import Scalar, Space
from embedding_core.store import storage
from embedding_core.store.conditional_put import check_writable
from embedding_core.store.storage import StorageSpec

log = logging.getLogger(__name__)


def _never_written(dataset: lance.LanceDataset) -> str | None:
    """Why no table of embedlake was ever written with this schema; None when one may have been."""
    if schema.RECIPE_KEY not in (dataset.schema.metadata or {}):
        return None
    ids = [field.id() for field in dataset.lance_schema.fields()]
    if len(set(ids)) < len(ids):
        return "two columns have one number"
    lacking = {field.name for field in schema.FIXED_FIELDS if not field.nullable}
    if lacking := lacking.difference(dataset.schema.names):
        return f"it has no column {min(lacking)}"
    return None


@dataclass(frozen=True, slots=True)
class TableStatus:
    """A table at its newest version, read from its metadata alone."""

    table: str
    """URI of the table."""
    version: int
    rows: int
    fragments: int
    recipe: str | None
    """Name of the recipe that made it."""
    space_id: str
    """The space in service."""
    model: str
    """Its model's name."""
    dim: int
    vector_columns: tuple[str, ...]
    """``vector``, which is in service, and those of other spaces."""
    indexes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Lake:
    """A LanceDB database: a local folder or ``s3://bucket/prefix``."""

    uri: str
    storage: StorageSpec = field(default_factory=StorageSpec)
    options: Mapping[str, str] = field(init=False, compare=False)
    """Lance's storage options for this database."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", storage.lance_options(self.storage))

    @classmethod
    def open(cls, uri: str, storage: StorageSpec | None = None) -> Lake:
        """Name the database; nothing is read until a table is opened."""
        return cls(uri.rstrip("/"), storage or StorageSpec())

    def table(self, name: str) -> Table:
        """The table of that name. Raises ``LakeError`` when it is missing."""
        table = Table(self, name)
        if not table.exists():
            raise LakeError(
                f"there is no table {name!r} in {self.uri}; check lake.uri and lake.table, or let "
                "a recipe that names it make it",
                action="embed",
            )
        return table

    def __repr__(self) -> str:
        return f"<Lake {self.uri}>"


@dataclass(frozen=True, slots=True)
class Table:
    """One table; every read sees the newest committed version."""

    lake: Lake
    name: str
    columns: tuple[pa.Schema, ...] = field(default=(), compare=False)
    """What it is made with and what earlier versions of embedlake made it with, where no recipe
    changes that: any other schema is damage."""
    uri: str = field(init=False, compare=False)
    """Where the Lance dataset is."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "uri", f"{self.lake.uri.rstrip('/')}/{self.name}.lance")

    def __repr__(self) -> str:
        return f"<Table {self.name} in {self.lake.uri}>"

    def __len__(self) -> int:
        """Rows of the newest version."""
        return int(self.dataset().count_rows())

    def __bool__(self) -> bool:
        """A table is true, also without rows."""
        return True

    def _repr_html_(self) -> str:
        lines = asdict(self.status()).items()
        rows = "".join(f"<tr><th>{n}</th><td>{html.escape(str(v))}</td></tr>" for n, v in lines)
        return f"<table><tbody>{rows}</tbody></table>"

    def status(self) -> TableStatus:
        """Size, space and indexes; reads no row. ``runs.table_status`` adds files and rejects."""
        snapshot = self.open()
        dataset = snapshot.dataset
        in_service, space = snapshot.space()
        return TableStatus(
            table=self.uri,
            version=snapshot.version,
            rows=snapshot.n_rows,
            fragments=len(dataset.get_fragments()),
            recipe=snapshot.recipe_name(),
            space_id=in_service,
            model=space.model,
            dim=space.dim,
            vector_columns=tuple(filter(schema.is_vector_column, dataset.schema.names)),
            indexes=tuple(index.name for index in dataset.describe_indices()),
        )

    def to_arrow(self, columns: Sequence[str] | None = None, where: str | None = None) -> pa.Table:
        """All rows in memory; only ``columns`` and rows of the SQL filter ``where`` if given."""
        # A filter that fails is no damage.
        with self.faults("reading") if where is None else store_faults(f"reading {self.uri}"):
            return self.dataset().to_table(columns=columns and list(columns), filter=where)

    def exists(self) -> bool:
        """Whether the table was ever committed; a run killed just before leaves an empty folder."""
        with store_faults(f"looking for {self.uri}"):
            versions = storage.names_in(f"{self.uri}/_versions", self.lake.storage)
        return any(name.endswith(".manifest") for name in versions)

    def open(self, version: int | None = None) -> Snapshot:
        """The newest version, or ``version`` if it is still there, to read from."""
        return Snapshot(self, self.dataset(version))

    def open_if_made(self) -> Snapshot | None:
        """The newest version; None before the table is made."""
        return self.open() if self.exists() else None

    def dataset(self, version: int | None = None) -> lance.LanceDataset:
        """The newest version of the dataset, or ``version`` if it is still there."""
        with store_faults(f"opening {self.uri}"):
            newest = self._open()
            if version is None or version == newest.version:
                return newest
            try:
                return newest.checkout_version(version)
            except OSError:
                if version in self._versions():
                    raise
            log.warning(
                "version %d of %s was cleaned up meanwhile: reading version %d",
                version, self.uri, newest.version,
            )  # fmt: skip
            return newest

    @contextmanager
    def faults(self, doing: str) -> Iterator[None]:
        """``store_faults`` while ``doing`` something with this table.

        When the cause is damage that no retry heals, a ``LakeError`` names it.
        """
        try:
            yield
        except BaseException as error:
            fault = store_fault(f"{doing} {self.uri}", error)
            if isinstance(fault or error, Transient | ValueError):
                with store_faults(f"looking for damage in {self.uri}"):
                    damage = damage_of(self.uri, self.lake.storage, self._open())
                if damage is None and isinstance(fault or error, pa.ArrowInvalid):
                    damage = unreadable_rows(plain(error))
                if damage is not None:
                    raise LakeError(f"{doing} {self.uri}: {damage}", action=damage.action) from (
                        fault or error
                    )
            if fault is None:
                raise
            raise fault from error

    def _open(self, session: lance.Session | None = None) -> lance.LanceDataset:
        try:
            return self._parsed(session)
        except BaseException as error:  # whatever keeps Lance from opening the table
            if not isinstance(error, ValueError) and not is_panic(error):
                raise
            why = f"cannot open {self.uri}: {plain(error)}"
            if not self.exists():
                raise LakeError(
                    f"{why}; if it was deleted, the next run makes it again", action="embed"
                ) from error
        return self._parsed_again(session, why)

    def _parsed(self, session: lance.Session | None) -> lance.LanceDataset:
        dataset = lance.dataset(self.uri, storage_options=self.lake.options, session=session)
        if not dataset.schema.names:  # parsed now: a damaged manifest shows here
            raise ValueError("it has no columns")  # as a manifest of zeros has none
        if self.columns and dataset.schema not in self.columns:
            raise ValueError("its columns are not those that it was made with")
        if (why := _never_written(dataset)) is not None:
            raise ValueError(why)
        return dataset

    def _parsed_again(self, session: lance.Session | None, why: str) -> lance.LanceDataset:
        """Open the table a second time.

        Raises ``LakeError`` when its newest manifest can be read and yet does not parse,
        ``Transient`` when the store does not answer.
        """
        with store_faults(f"reading the newest manifest of {self.uri}"):
            version, name = self.newest_manifest()
            storage.read_bytes(f"{self.uri}/_versions/{name}", self.lake.storage)
        try:
            return self._parsed(session)
        except BaseException as error:
            if not isinstance(error, ValueError) and not is_panic(error):
                raise
            raise DamagedManifest(self.uri, f"{version} ({name})", why) from error

    def newest_manifest(self) -> tuple[int, str]:
        """The newest version, and the name of its manifest in ``_versions``."""
        return max(self._versions().items())

    def _versions(self) -> dict[int, str]:
        """Name of the manifest of each version; Lance counts names of 20 digits down."""
        manifests = {}
        for name in storage.names_in(f"{self.uri}/_versions", self.lake.storage):
            digits, _, suffix = name.partition(".")
            if suffix == "manifest" and digits.isascii() and digits.isdigit():
                number = int(digits)
                counted_down = len(digits) == COUNTED_DOWN_DIGITS
                manifests[LARGEST_NUMBER - number if counted_down else number] = name
        return manifests

    def ensure(self, arrow_schema: pa.Schema) -> Snapshot:
        """The newest version, or an empty table of this schema where there was none."""
        if snapshot := self.open_if_made():
            return snapshot
        try:
            return self.create(arrow_schema)
        except Transient:
            if not self.exists():  # else another run made it first
                raise
        return self.open()

    def create(self, arrow_schema: pa.Schema) -> Snapshot:
        """Commit an empty table, after making sure that the store can hold one safely."""
        check_writable(self.lake.uri, self.lake.storage)
        with flushed(self.uri), store_faults(f"creating {self.uri}"):
            dataset = lance.write_dataset(
                arrow_schema.empty_table(),
                self.uri,
                schema=arrow_schema,
                mode="create",
                storage_options=self.lake.options,
            )
        return Snapshot(self, dataset)

    def space(self, column: str = schema.VECTOR) -> tuple[str, Space]:
        """``space_id`` and description of a vector column's space; default: that in service."""
        return self.open().space(column)

    def search(
        self,
        words: str,
        encoder: TextEncoder,
        k: int = 10,
        where: str | None = None,
        params: Mapping[str, Scalar] | None = None,
        exact: bool = False,
        hybrid: bool = False,
        nprobes: int | None = None,
        column: str = schema.VECTOR,
    ) -> Hits:
        """The ``k`` chunks nearest to ``words``, best first.

        ``where`` is a SQL filter over the table's columns, applied before the search; write values
        as ``:name`` and give them in ``params``, where they are quoted. ``exact`` goes past the
        vector index, ``nprobes`` looks into more or fewer of its partitions than the tuned number.
        ``hybrid`` fuses the result with a full-text search for the same words. Raises
        ``UsageError`` for a bad filter or a missing full-text index, ``LakeError`` for an encoder
        of another space.
        """
        query = Query(k, where, params or {}, exact, hybrid, nprobes, column)
        return self.search_many([words], encoder, query)[0]

    def search_many(
        self, queries: Sequence[str], encoder: TextEncoder, query: Query | None = None
    ) -> list[Hits]:
        """``search`` for several queries, encoded together; results in the queries' order."""
        return self.open_to_search().search_many(queries, encoder, query)

    def search_vectors(
        self, vectors: Vectors, space: Space, query: Query | None = None
    ) -> list[Hits]:
        """``search_many`` for queries that are vectors of ``space`` already."""
        return self.open_to_search().search_vectors(vectors, space, query)

    def open_to_search(self) -> Snapshot:
        """The newest version; index pages that this process has read stay in memory."""
        with store_faults(f"opening {self.uri}"):
            return Snapshot(self, self._open(_session()))


@cache
def _session() -> lance.Session:
    """A cache of manifests and indexes that this process has read, for all its searches."""
    return lance.Session()


def table_of(recipe: Recipe) -> Table:
    """The recipe's table, whether it exists or not."""
    return Table(Lake.open(recipe.lake.uri, recipe.lake.storage), recipe.lake.table)


def existing_table(recipe: Recipe) -> Table:
    """The recipe's table. Raises ``LakeError`` when it is missing."""
    return Lake.open(recipe.lake.uri, recipe.lake.storage).table(recipe.lake.table)
