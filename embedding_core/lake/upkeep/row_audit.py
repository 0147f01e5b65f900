"""Check the rows of a table: their columns against each other, and against the ledger."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import lance
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from embedding_core.errors import EmbedlakeError
from embedding_core.identity import chunk_id, text_hash
from embedding_core.lake import faults, schema
from embedding_core.lake.faults import is_panic
from embedding_core.lake.ledger import LedgerEntry
from embedding_core.lake.scans import raw_scan
from embedding_core.lake.spaces.vector_columns import field_id, holder, missing_rows
from embedding_core.lake.table import Table
from embedding_core.lake.vectors import is_unit, plain, to_numpy
from embedding_core.plurals import counted
from embedding_core.records import embedded_text
from embedding_core.records.space import NORM_TOLERANCE

ROWS_NAMED = 20
"""Rows that a damage lists by number; the count is exact."""
SOURCES_NAMED = 20
"""Files of the source that a damage lists; their number is exact."""
ROWS_PER_BATCH = 4_096
FULL_NORM_TOLERANCE = 1e-4
"""A unit vector in float32 keeps its length to about 1e-6; a hundred times that is wrong."""
LEAST_DEVIATION, OUTLIER = 5e-6, 20.0
"""A value of a vector that was computed again is wrong when it is off by more than the first number
and by more than the second times the median of its vector: noise is spread over all values, a
flipped bit changes one."""
HALF_ROUNDING = 2.0**-10
"""Twice what rounding to float16 moves a value by, of itself."""
LEAST_COSINE = 0.999
"""Half precision stays above it against fp32, as in the parity check of every worker."""
KEY_DIGITS = 64
DATA, INDEX, COUNT, ROW, FEEDBACK = "file", "index", "count", "row", "feedback"
ROW_COLUMNS = [
    "chunk_id", "file_key", "source_uri", "doc_id", "chunk_index", "text", "context", "text_hash",
    "n_tokens", "char_start", "char_end",
]  # fmt: skip

Encode = Callable[[Sequence[str]], NDArray[np.float32]]
"""Texts to (n_texts, dim) float32, unit norm: the model of the column in service."""


@dataclass(frozen=True, slots=True)
class Damage:
    """A part of a table that is not what was written."""

    kind: str
    """``file``, ``index``, ``count``, ``row``, ``manifest`` or ``feedback``."""
    table: str
    """Name of the table: the recipe's, its ledger, its rejects or its feedback."""
    what: str
    """The damage in words."""
    data_files: tuple[str, ...] = ()
    """Names of files in the table's ``data`` folder."""
    source_uris: tuple[str, ...] = ()
    """The first 20 source files whose rows are concerned, where they can be told."""
    rows: tuple[int, ...] = ()
    """Numbers of the first 20 damaged rows in their fragment, from 0."""
    n_rows: int = 0
    """How many rows are damaged, where they can be told."""
    fragment_id: int | None = None
    file_keys: frozenset[str] = frozenset()
    """File versions as the damaged rows name them."""
    index: str | None = None
    """Name of a damaged index."""
    n_sources: int = 0
    """How many source files are concerned, where they can be told."""

    @property
    def is_final(self) -> bool:
        """Whether no run can make again what is damaged: repair leaves it as it is."""
        return self.kind == FEEDBACK


@dataclass(slots=True)
class Seen:
    """What a pass over the rows adds up, and the ledger that it is compared with."""

    entries: Mapping[str, LedgerEntry]
    """The ledger's good lines, by file key."""
    doubted: Collection[str]
    """File keys that may lack a good line: those of its other lines, and of rows whose line a run
    has still to write."""
    most_tokens: int | None
    """Longest chunk of the table: the ledger counts no more tokens of one."""
    sample_every: int
    """One row in so many is encoded again; 0: no row."""
    rows: int = 0
    encoded_again: int = 0
    keys: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Rows by (source URI, file key)."""
    tokens: Counter[str] = field(default_factory=Counter)
    """Tokens by file key; empty after a quick audit."""
    cut_tokens: Counter[str] = field(default_factory=Counter)
    """Tokens by file key, at most ``most_tokens`` of each chunk."""

    def count(self, uri: str, key: str, tokens: int) -> None:
        """Add a row."""
        self.keys[uri, key] += 1
        self.tokens[key] += tokens
        self.cut_tokens[key] += min(tokens, self.most_tokens or tokens)

    def unlike_the_ledger(self, uri: str, key: str) -> str | None:
        """What is wrong with a row's file key; None when nothing is."""
        if len(key) != KEY_DIGITS or not key.isalnum():
            return "file_key is no digest"
        entry = self.entries.get(key)
        if entry is not None:
            return None if entry.counts.source_uri == uri else "source_uri is not its file_key's"
        is_missing = key not in self.doubted and uri in self._uris()
        return "file_key is not in the ledger" if is_missing else None

    def _uris(self) -> frozenset[str]:
        if self._ledger_uris is None:
            uris = (entry.counts.source_uri for entry in self.entries.values())
            self._ledger_uris = frozenset(uris)
        return self._ledger_uris

    _ledger_uris: frozenset[str] | None = None


def fragment_damages(
    table: Table,
    dataset: lance.LanceDataset,
    fragment: lance.LanceFragment,
    encode: Encode | None,
    seen: Seen,
) -> list[Damage]:
    """A damage for each check that rows of a fragment fail."""
    vectors = _vector_columns(dataset, fragment)
    batches = raw_scan(
        dataset,
        [*ROW_COLUMNS, *vectors],
        fragments=[fragment],
        row_address=True,
        batch_rows=ROWS_PER_BATCH,
    )
    wrong: dict[tuple[str, str], list[tuple[int, str, str]]] = defaultdict(list)
    nulls: Counter[str] = Counter()
    try:
        for batch in batches:
            numbers = batch.column("_rowaddr").to_numpy() & 0xFFFFFFFF
            rows = _Rows.of(batch)
            for why, column, position in _row_faults(rows, batch, vectors, encode, seen):
                wrong[why, column].append(
                    (int(numbers[position]), rows.uris[position], rows.keys[position])
                )
            for column in vectors:
                nulls[column] += batch.column(column).null_count
        _read_columns_alone(dataset, fragment)
    except BaseException as error:
        if not is_of_the_data(error):
            raise
        return [_unreadable(table, dataset, fragment, error)]
    damages = []
    for (why, column), rows_wrong in wrong.items():
        uris = sorted({uri for _, uri, _ in rows_wrong})
        damages.append(
            Damage(
                ROW,
                table.name,
                why,
                file_of(dataset, fragment, column),
                tuple(uris[:SOURCES_NAMED]),
                tuple(number for number, _, _ in rows_wrong[:ROWS_NAMED]),
                len(rows_wrong),
                fragment.fragment_id,
                frozenset(key for _, _, key in rows_wrong),
                n_sources=len(uris),
            )
        )
    return damages + _null_damages(table, dataset, fragment, nulls)


def is_of_the_data(error: BaseException) -> bool:
    """Whether an error comes from the data that is read, not from the code that reads it."""
    return isinstance(error, (EmbedlakeError, OSError, ValueError, RuntimeError)) or is_panic(error)


@dataclass(frozen=True, slots=True)
class _Rows:
    """Columns of a batch as Python values; bytes that are not UTF-8 are replaced, and so wrong."""

    ids: list[str]
    keys: list[str]
    uris: list[str]
    doc_ids: list[str]
    texts: list[str]
    embedded: list[str]
    """What the model reads of them, their contexts included."""
    hashes: list[str]

    @classmethod
    def of(cls, batch: pa.RecordBatch) -> _Rows:
        names = ["chunk_id", "file_key", "source_uri", "doc_id", "text", "text_hash"]
        ids, keys, uris, doc_ids, texts, hashes = (strings(batch.column(name)) for name in names)
        contexts = batch.column("context")
        there = contexts.is_valid().to_pylist()
        embedded = [
            embedded_text(text, context if has_context else None)
            for text, context, has_context in zip(texts, strings(contexts), there, strict=True)
        ]
        return cls(ids, keys, uris, doc_ids, texts, embedded, hashes)


def strings(column: pa.Array) -> list[str]:
    """Values of a text column; bytes that are not UTF-8 are replaced."""
    binary = column.cast(pa.binary()).to_pylist()
    return [(value or b"").decode("utf-8", "replace") for value in binary]


def _row_faults(
    rows: _Rows,
    batch: pa.RecordBatch,
    vectors: Sequence[str],
    encode: Encode | None,
    seen: Seen,
) -> Iterator[tuple[str, str, int]]:
    """Each fault: (why, the column whose file is named, position in the batch)."""
    indexes = batch.column("chunk_index").to_pylist()
    starts, ends = (batch.column(name).to_pylist() for name in ("char_start", "char_end"))
    tokens = batch.column("n_tokens").to_pylist()
    for position, text in enumerate(rows.texts):
        uri, key = rows.uris[position], rows.keys[position]
        seen.count(uri, key, tokens[position])
        if why := seen.unlike_the_ledger(uri, key):
            yield why, "file_key", position
        if text_hash(rows.embedded[position]) != rows.hashes[position]:
            yield "text_hash is not the digest of the text", "text", position
        expected = chunk_id(uri, rows.doc_ids[position], indexes[position], rows.hashes[position])
        if rows.ids[position] != expected:
            yield "chunk_id is not the digest of its columns", "chunk_id", position
        if starts[position] < 0 or ends[position] - starts[position] != len(text):
            yield "char_start and char_end do not span the text", "char_start", position
        if tokens[position] < 0:
            yield "n_tokens is below zero", "n_tokens", position
    for column in vectors:
        lists = plain(batch.column(column))
        is_half = lists.type.value_type == pa.float16()
        unit = is_unit(lists, NORM_TOLERANCE if is_half else FULL_NORM_TOLERANCE)
        is_there = lists.is_valid().to_numpy(zero_copy_only=False)
        for position in np.flatnonzero(~unit & is_there).tolist():
            yield f"{column} is not finite or not of unit length", column, position
    yield from _other_vectors(rows, batch, encode, seen)
    seen.rows += batch.num_rows


def _other_vectors(
    rows: _Rows, batch: pa.RecordBatch, encode: Encode | None, seen: Seen
) -> Iterator[tuple[str, str, int]]:
    """Rows of the sample whose vector is not what the model makes of their text."""
    if encode is None or not seen.sample_every or schema.VECTOR not in batch.schema.names:
        return
    lists = plain(batch.column(schema.VECTOR))
    valid = lists.is_valid().to_numpy(zero_copy_only=False)
    chosen = np.flatnonzero(
        valid & ((seen.rows + np.arange(batch.num_rows)) % seen.sample_every == 0)
    )
    if not len(chosen):
        return
    stored = to_numpy(lists.take(pa.array(chosen)))  # (n_chosen, dim)
    made = encode([rows.embedded[position] for position in chosen])
    seen.encoded_again += len(chosen)
    is_half = lists.type.value_type == pa.float16()
    for position in chosen[is_another(stored, made, is_half)]:
        yield "vector is not what the model makes of the text", schema.VECTOR, int(position)


def is_another(
    stored: NDArray[np.float32], made: NDArray[np.float32], is_half: bool
) -> NDArray[np.bool_]:
    """(n_rows,) whether a stored vector differs from a new one; both (n_rows, dim).

    Another device or batch moves all values a little, a flipped bit moves a single value. NaN
    differs.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        off = np.abs(stored - made)
        if is_half:
            off = np.maximum(off - HALF_ROUNDING * np.abs(made), 0)
        most = np.maximum(LEAST_DEVIATION, OUTLIER * np.median(off, axis=1))
        another: NDArray[np.bool_] = ~(off.max(axis=1) <= most)
        another |= ~((stored * made).sum(axis=1) >= LEAST_COSINE)
    return another


def _vector_columns(dataset: lance.LanceDataset, fragment: lance.LanceFragment) -> list[str]:
    """Vector columns that the fragment has data for."""
    return [
        column.name
        for column in dataset.schema
        if schema.is_vector_column(column.name)
        and holder(fragment, field_id(dataset, column)) is not None
    ]


def _read_columns_alone(dataset: lance.LanceDataset, fragment: lance.LanceFragment) -> None:
    """Read a row of one column of each data file: reading all columns of a file does not use the
    part of its footer that says where each column begins."""
    columns = {path: column.name for column in dataset.schema
               for path in file_of(dataset, fragment, column.name)}  # fmt: skip
    for column in columns.values():
        next(iter(fragment.to_batches(columns=[column], limit=1)), None)


def file_of(
    dataset: lance.LanceDataset, fragment: lance.LanceFragment, column: str
) -> tuple[str, ...]:
    """The data file of a column; all files of the fragment where the manifest names none for it."""
    file = holder(fragment, field_id(dataset, dataset.schema.field(column)))
    files = fragment.data_files() if file is None else [file]
    return tuple(str(file.path) for file in files)


def _null_damages(
    table: Table,
    dataset: lance.LanceDataset,
    fragment: lance.LanceFragment,
    nulls: Mapping[str, int],
) -> list[Damage]:
    """Vector columns with more or fewer nulls than the metadata says."""
    damages = []
    for column, n_nulls in nulls.items():
        space_id = schema.space_of(dataset.schema.field(column))[0]
        expected = missing_rows(dataset, space_id).get(fragment.fragment_id, 0)
        if n_nulls != expected:
            why = (
                f"{counted(n_nulls, 'row')} without a vector in {column}, by the metadata "
                f"{expected}"
            )
            keys = frozenset(_keys_where_null(dataset, fragment, column))
            file = file_of(dataset, fragment, column)
            damages.append(
                Damage(ROW, table.name, why, file, (), (), n_nulls, fragment.fragment_id, keys)
            )
    return damages


def _keys_where_null(
    dataset: lance.LanceDataset, fragment: lance.LanceFragment, column: str
) -> list[str]:
    batches = raw_scan(dataset, ["file_key", column], fragments=[fragment])
    return [
        key
        for batch in batches
        for key in batch.column("file_key").filter(batch.column(column).is_null()).to_pylist()
    ]


def _unreadable(
    table: Table, dataset: lance.LanceDataset, fragment: lance.LanceFragment, error: BaseException
) -> Damage:
    """The damage of a fragment that cannot be read, with the columns and data files at fault."""
    columns = [
        column.name
        for column in dataset.schema
        if holder(fragment, field_id(dataset, column)) is not None
        and not reads(dataset, fragment, column.name)
    ]
    files = {path for column in columns for path in file_of(dataset, fragment, column)}
    files = files or {str(file.path) for file in fragment.data_files()}  # it fails as a whole only
    named = ", ".join(columns) or "its rows"
    return Damage(
        DATA, table.name, f"{named} cannot be read: {faults.plain(error)}", tuple(sorted(files)),
        fragment_id=fragment.fragment_id,
    )  # fmt: skip


def reads(dataset: lance.LanceDataset, fragment: lance.LanceFragment, column: str) -> bool:
    try:
        for batch in raw_scan(dataset, [column], fragments=[fragment]):
            batch.validate(full=True)
    except BaseException as error:
        if not is_of_the_data(error):
            raise
        return False
    return True
