"""Many records at once: column by column, where no record breaks a rule.

A batch in which any record does, or has a value of an unusual type, is mapped record by record, so
that reasons and their order are the same either way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import Any

from embedding_core.errors import RejectedInput
from embedding_core.identity import id_digest
from embedding_core.recipe import SourceSpec
from embedding_core.recipe.mapping.field_path import FieldPath
from embedding_core.recipe.mapping.template import TextTemplate
from embedding_core.records import ColumnType, Document, Scalar
from embedding_core.records.scalars import INT64_MAX, INT64_MIN
from embedding_core.sources.formats.format import Rows
from embedding_core.sources.mapping.metadata import folder_values
from embedding_core.sources.mapping.readers import column_readers, pattern_of
from embedding_core.sources.mapping.tidying import tidier

MOST_CHARACTERS = 16 * 1024 * 1024
"""Characters of a column that are looked at in one go: they are in memory twice then."""


def takes_batches(spec: SourceSpec) -> bool:
    """Whether a recipe asks for nothing that is made of a single record as a whole."""
    makes_groups = spec.sample is not None and spec.sample.per is not None
    derives = spec.map is not None or spec.conversation is not None or spec.title is not None
    return not (makes_groups or derives)


class BatchMapper:
    """Maps the batches of ONE file, or of a slice of one, that are as they should be."""

    def __init__(self, spec: SourceSpec, source_uri: str, used_ids: set[bytes]) -> None:
        """``used_ids``: digests of the ids that were given out so far, to which it adds."""
        template = TextTemplate.parse(spec.text)
        self._uri = source_uri
        self._id = None if spec.id is None else FieldPath.parse(spec.id).key
        self._names = [placeholder.path.key for placeholder in template.placeholders]
        self._pattern = None if template.is_plain else pattern_of(template)
        self._tidied = tidier(spec.normalize, spec.whitespace)
        self._columns = [
            (name, FieldPath.parse(column.field), column.type)
            for name, column in spec.metadata.items()
        ]
        self._folders = folder_values(source_uri, spec.metadata)
        self._readers = dict(column_readers(spec.metadata, source_uri))
        self._used_ids = used_ids

    def documents(self, rows: Rows) -> Iterator[Document] | None:
        """The documents of a batch; None for one that has to be mapped record by record.

        Each is made when it is asked for: objects that live together keep the garbage collector
        busy.
        """
        positions = range(rows.first_position, rows.first_position + rows.n_rows)
        try:
            ids = list(map(str, positions)) if self._id is None else _ids(rows.columns[self._id])
            texts = self._texts(rows)
            metadata = self._metadata(rows)
            if self._id is not None:
                self._claim(ids)
        except (_Unusual, RejectedInput, KeyError, UnicodeEncodeError):
            return None
        uris = repeat(self._uri)
        return map(Document, ids, positions, texts, metadata, repeat(None), uris)

    def _texts(self, rows: Rows) -> list[str]:
        columns = [_strings(rows.columns[name]) for name in self._names]
        if self._pattern is None:
            texts = columns[0]
        else:
            texts = list(map(self._pattern.__mod__, zip(*columns, strict=True)))
            _check(texts)
        if self._tidied is not None:
            texts = list(map(self._tidied, texts))
        if not all(texts) or any(map(str.isspace, texts)):
            raise _Unusual
        return texts

    def _metadata(self, rows: Rows) -> Iterator[dict[str, Scalar]]:
        if not self._columns:
            return ({} for _ in range(rows.n_rows))
        names = [name for name, _, _ in self._columns]
        columns = [self._values(*column, rows) for column in self._columns]
        return (dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True))

    def _values(
        self, name: str, path: FieldPath, declared: ColumnType, rows: Rows
    ) -> Sequence[Scalar]:
        read = self._readers[name]
        if path.key not in rows.columns:
            if path.root in rows.columns:
                raise _Unusual  # the way goes on inside a value
            return [read({})] * rows.n_rows
        values = rows.columns[path.key]
        kinds = set(map(type, values)) - {type(None)}
        present = [value for value in values if value is not None]
        if len(present) < len(values) and name in self._folders:
            raise _Unusual  # whether the field is null or missing, the record knows
        if kinds == {str} and declared == "string":
            _check(present)
        elif kinds == {int} and declared == "int":
            if min(present) < INT64_MIN or max(present) > INT64_MAX:
                raise _Unusual
        elif kinds and not (kinds == {bool} and declared == "bool"):
            return [read({path.key: value}) for value in values]
        return values

    def _claim(self, ids: list[str]) -> None:
        digests = set(map(id_digest, ids))
        if len(digests) < len(ids) or not self._used_ids.isdisjoint(digests):
            raise _Unusual
        self._used_ids |= digests


class _Unusual(Exception):
    """A value asks for the look that a single record gets."""


def _ids(values: list[Any]) -> list[str]:
    if set(map(type, values)) == {int}:
        if min(values) < INT64_MIN or max(values) > INT64_MAX:
            raise _Unusual
        return list(map(str, values))
    ids = _strings(values)
    if not all(ids):
        raise _Unusual
    return ids


def _strings(values: list[Any]) -> list[str]:
    if set(map(type, values)) != {str}:
        raise _Unusual
    _check(values)
    return values


def _check(texts: Sequence[str]) -> None:
    """Raise for a NUL character or half of a surrogate pair, or for more than can be looked at."""
    if sum(map(len, texts)) > MOST_CHARACTERS:
        raise _Unusual
    joined = "".join(texts)
    if "\0" in joined:
        raise _Unusual
    joined.isascii() or joined.encode()
