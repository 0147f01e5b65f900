"""Rows that somebody wrote, as rows of a table: what is there is taken, what lacks is made."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from embedding_core.errors import SetupError, UsageError
from embedding_core.identity import chunk_id, digest, text_hash
from embedding_core.lake import schema
from embedding_core.lake.rows.embedded import embedded_texts
from embedding_core.lake.rows.verification import hashes_of
from embedding_core.lake.vectors import are_unit, to_lists
from embedding_core.plurals import counted
from embedding_core.protocols import Tokenizer, Vectors
from embedding_core.records import FileCounts

MADE = ("source_uri", "doc_id", "chunk_index", "context", "text_hash", "n_tokens", "char_start",
        "char_end", "file_key", "chunk_id")  # fmt: skip
"""Columns that are made where they lack, in this order: later ones need earlier ones."""


@dataclass
class RowMaker:
    """Makes rows of a table, batch by batch, and counts what it did."""

    columns: pa.Schema
    """The table's."""
    tokenizer: Tokenizer | None
    """What counts tokens; None where the model is not here."""
    normalize: bool
    """Whether vectors of another length are brought to unit length."""
    n_normalized: int = 0
    left_out: set[str] = dataclasses.field(default_factory=set)
    """Columns of the files that the table does not have."""
    made: set[str] = dataclasses.field(default_factory=set)
    """Columns that the files do not have."""
    _ids: list[NDArray[np.int64]] = dataclasses.field(default_factory=list)
    _last: tuple[str, str, int] = ("", "", -1)
    """File, document and chunk of the row before."""
    _files: dict[tuple[str, str], int] = dataclasses.field(default_factory=dict)
    """Numbers of the file versions, by key and URI."""
    _of_files: list[tuple[NDArray[np.int64], ...]] = dataclasses.field(default_factory=list)
    """A batch each: (n_rows,) numbers of the files, hashes of the documents, tokens of the rows."""

    def rows(self, batches: Iterator[pa.RecordBatch], where: str) -> Iterator[pa.RecordBatch]:
        """The rows of a shard; ``where`` says in errors which one.

        Raises ``SetupError`` for rows that no table can have, ``UsageError`` for a column that is
        needed and lacks.
        """
        n_rows = 0
        for batch in batches:
            if batch.num_rows:
                yield self._batch(batch, where, n_rows)
            n_rows += batch.num_rows

    def check_unique(self) -> None:
        """Raise ``SetupError`` when two rows have the same ``chunk_id``."""
        hashes = np.concatenate([np.zeros(0, np.int64), *self._ids])
        if (n_twice := len(hashes) - len(np.unique(hashes))) > 0:
            raise SetupError(
                f"{counted(n_twice, 'row repeats', 'rows repeat')} the document, the position and "
                "the text of another; "
                "nothing was imported: remove them, or name a column of ids that differ as doc_id"
            )

    def file_counts(self) -> list[FileCounts]:
        """What the rows say of each file that they are of.

        Raises ``SetupError`` when rows of two files have the same ``file_key``.
        """
        if not self._files:
            return []
        if len(uris := dict(self._files.keys())) < len(self._files):
            key, uri = next(pair for pair in self._files if uris[pair[0]] != pair[1])
            raise SetupError(
                f"rows of {uri} and of {uris[key]} have the file_key {key!r}, and each file has "
                "its own; leave the column out, and it is made"
            )
        files, documents, tokens = map(np.concatenate, zip(*self._of_files, strict=True))
        _, first_rows = np.unique(documents, return_index=True)
        n_rows = np.bincount(files)
        n_documents = np.bincount(files[first_rows], minlength=len(n_rows))
        n_tokens = np.bincount(files, weights=tokens)
        return [
            FileCounts(
                file_key=key,
                source_uri=uri,
                documents=int(n_documents[number]),
                rejected=0,
                chunks=int(n_rows[number]),
                dropped=0,
                tokens=int(n_tokens[number]),
                reused=int(n_rows[number]),
            )
            for (key, uri), number in self._files.items()
        ]

    def _batch(self, batch: pa.RecordBatch, where: str, first_row: int) -> pa.RecordBatch:
        names = batch.schema.names
        for needed in ("text", schema.VECTOR):
            if needed not in names:
                raise UsageError(
                    f"{where} has no column {needed!r}; it has {', '.join(names)}: rename the one "
                    f"that is meant, {needed}=<name>"
                )
        self.left_out |= set(names) - set(self.columns.names)
        self.made |= set(self.columns.names) - set(names)
        columns: dict[str, pa.Array] = {
            field.name: self._cast(batch.column(field.name), field, where, first_row)
            for field in self.columns
            if field.name in names and field.name != schema.VECTOR
        }
        for name in MADE:
            if name not in columns:
                kind = self.columns.field(name).type
                columns[name] = pa.array(self._made(name, columns, where, first_row), kind)
        for field in self.columns:
            if field.name not in columns and field.name != schema.VECTOR:
                columns[field.name] = pa.nulls(batch.num_rows, field.type)
        check_hashes(batch, where, first_row)
        columns[schema.VECTOR] = self._vectors(batch.column(schema.VECTOR), where, first_row)
        self._ids.append(hashes_of(columns["chunk_id"]))
        self._count(columns)
        return pa.RecordBatch.from_arrays(
            [columns[name] for name in self.columns.names], schema=self.columns
        )

    def _count(self, columns: Mapping[str, pa.Array]) -> None:
        """Note which file and document each row is of."""
        names = ("file_key", "source_uri", "doc_id")
        keys, uris, doc_ids = (columns[name].to_pylist() for name in names)
        pairs = zip(keys, uris, strict=True)
        files = [self._files.setdefault(pair, len(self._files)) for pair in pairs]
        documents = list(map(hash, zip(files, doc_ids, strict=True)))
        tokens = columns["n_tokens"].to_numpy().astype(np.int64)
        self._of_files.append((np.array(files), np.array(documents, np.int64), tokens))

    def _cast(self, column: pa.Array, field: pa.Field, where: str, first_row: int) -> pa.Array:
        try:
            cast = column.cast(field.type)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise SetupError(
                f"column {field.name!r} of {where} is {column.type} and cannot be {field.type} "
                f"({error}); change the files, or the recipe's type of the column"
            ) from error
        if cast.null_count and not field.nullable:
            row = first_row + int(np.flatnonzero(cast.is_null().to_numpy(zero_copy_only=False))[0])
            raise SetupError(f"row {row} of {where} has no {field.name!r}; give each row one")
        return cast

    def _made(
        self, name: str, columns: Mapping[str, pa.Array], where: str, first_row: int
    ) -> list[object]:
        """Values of a column that the files do not have."""
        texts = columns["text"].to_pylist()
        match name:
            case "source_uri":
                return [where] * len(texts)
            case "doc_id":
                return [str(first_row + number) for number in range(len(texts))]
            case "chunk_index":
                return list(self._positions(columns))
            case "context":
                return [None] * len(texts)
            case "text_hash":
                return list(map(text_hash, embedded_texts(_table(columns)).to_pylist()))
            case "n_tokens":
                return self._counted(embedded_texts(_table(columns)).to_pylist())
            case "char_start":
                return [0] * len(texts)
            case "char_end":
                return list(map(len, texts))
            case "file_key":
                return [digest(["imported", uri]) for uri in columns["source_uri"].to_pylist()]
        keys = (columns[key].to_pylist() for key in _IDENTITY)
        return [chunk_id(*values) for values in zip(*keys, strict=True)]

    def _positions(self, columns: Mapping[str, pa.Array]) -> Iterator[int]:
        """Rows of a document that follow each other are its chunks, in their order."""
        names = (columns["source_uri"].to_pylist(), columns["doc_id"].to_pylist())
        for uri, doc_id in zip(*names, strict=True):
            index = self._last[2] + 1 if self._last[:2] == (uri, doc_id) else 0
            self._last = (uri, doc_id, index)
            yield index

    def _counted(self, texts: list[str]) -> list[object]:
        if self.tokenizer is None:
            raise UsageError(
                "the rows have no n_tokens and the recipe's model, which would count them, is not "
                "here; get the model, or import files that have the column"
            )
        return list(self.tokenizer.count(texts))

    def _vectors(self, column: pa.Array, where: str, first_row: int) -> pa.FixedSizeListArray:
        """Vectors as the table has them. Raises ``SetupError`` for a wrong dimension, and for a
        vector that is missing, not finite, zero or, unless they are normalised, not of unit
        length."""
        kind = self.columns.field(schema.VECTOR).type
        matrix = to_matrix(column, kind.list_size, where, first_row)
        checked: Vectors = matrix.astype(np.float32, copy=False)
        norms = np.linalg.norm(checked.astype(np.float64), axis=1)
        for wrong, what in (
            (~np.isfinite(norms), "NaN or infinity in its vector"),
            (norms == 0, "a vector of zeros"),
        ):
            if wrong.any():
                row = first_row + int(np.flatnonzero(wrong)[0])
                raise SetupError(f"row {row} of {where} has {what}; embed it again or leave it out")
        if not (bad := ~are_unit(checked)).any():
            return to_lists(matrix, kind)
        if not self.normalize:
            row = int(np.flatnonzero(bad)[0])
            raise SetupError(
                f"the vector of row {first_row + row} of {where} has the length {norms[row]:.4f}, "
                "and a table has vectors of length 1; have them normalised, if cosine is what "
                "their model is for"
            )
        self.n_normalized += int(bad.sum())
        scaled = np.where(bad[:, None], checked / norms[:, None], checked)
        return to_lists(scaled.astype(np.float32), kind)


_IDENTITY = ("source_uri", "doc_id", "chunk_index", "text_hash")


def check_hashes(batch: pa.RecordBatch, where: str, first_row: int = 0) -> None:
    """Raise ``SetupError`` for a ``text_hash`` that is not of what was embedded: a column was left
    out or edited since, and the vector is not that of the row."""
    if "text_hash" not in batch.schema.names:
        return
    nulls = pa.nulls(batch.num_rows, pa.string())
    contexts = batch.column("context") if "context" in batch.schema.names else nulls
    texts = embedded_texts(pa.table({"context": contexts, "text": batch.column("text")}))
    hashes = zip(batch.column("text_hash").to_pylist(), texts.to_pylist(), strict=True)
    for row, (stored, text) in enumerate(hashes, first_row):
        if text is not None and stored != text_hash(text):
            raise SetupError(
                f"row {row} of {where} has a text_hash that is not of its context and text; export "
                "both columns, as they are in the table, or embed the texts"
            )


def to_matrix(column: pa.Array, dim: int, where: str, first_row: int = 0) -> NDArray[np.floating]:
    """(n_rows, dim) the numbers of vectors in lists of any kind. Raises ``SetupError``."""
    lists = column.storage if isinstance(column, pa.ExtensionArray) else column
    if not hasattr(lists.type, "value_type") or not pa.types.is_floating(lists.type.value_type):
        raise SetupError(
            f"the vectors of {where} are {lists.type}; a column of lists of floats is needed"
        )
    if lists.null_count:
        row = first_row + int(np.flatnonzero(lists.is_null().to_numpy(zero_copy_only=False))[0])
        raise SetupError(f"row {row} of {where} has no vector; embed it or leave it out")
    numbers = lists.flatten()
    lengths = lists.value_lengths() if not pa.types.is_fixed_size_list(lists.type) else None
    uneven = lengths is not None and len(lengths.unique()) > 1
    if uneven or len(numbers) != dim * len(lists) or numbers.null_count:
        has = (
            "vectors of several lengths"
            if uneven
            else f"{counted(len(numbers) // len(lists), 'dimension')}"
        )
        raise SetupError(f"{where} has {has}, the space has {dim}; it is of another model")
    return np.asarray(numbers.to_numpy(zero_copy_only=False)).reshape(-1, dim)


def _table(columns: Mapping[str, pa.Array]) -> pa.Table:
    return pa.table({name: columns[name] for name in ("context", "text")})
