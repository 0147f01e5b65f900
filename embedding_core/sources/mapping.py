"""From a raw record to a validated document: id, text, metadata, in that order.

The first rule a record breaks is the reason of its reject. Text and ids are kept exactly as they
are, without any normalisation: offsets and joins refer to them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import cast
from uuid import UUID

from embedding_core.errors import RejectedInput
from embedding_core.identity import id_digest
from embedding_core.reasons import (
    DUPLICATE_ID,
    EMPTY_TEXT,
    LONE_SURROGATE,
    MISSING_FIELD,
    NUL_CHARACTER,
)
from embedding_core.recipe import SourceSpec
from embedding_core.records import Document, Reject, Scalar
from embedding_core.sources.formats.format import (
    ColumnFloat,
    Fields,
    Flaw,
    Record,
    Undecodable,
    listed,
    shown,
    wrong_type,
)
from embedding_core.sources.grouping import Grouping
from embedding_core.sources.metadata import convert, folder_values, whole
from embedding_core.sources.template import TextTemplate


class RecordMapper:
    """Maps the records of ONE file, or of a slice of one; remembers the ids it has given out.

    Of several usable records with one id the first wins and the others are rejected as
    ``duplicate_id``. Memory: a 16-byte hash per document, only when an id field is declared.
    """

    def __init__(
        self, spec: SourceSpec, source_uri: str, duplicates: frozenset[int] = frozenset()
    ) -> None:
        self._id = spec.id
        self._columns = tuple(spec.metadata.items())
        self._duplicates = duplicates  # positions whose id an earlier slice has given out
        self._uri = source_uri
        self._template = TextTemplate.parse(spec.text)
        self._folders = folder_values(source_uri, spec.metadata)
        self._grouping = Grouping.of(spec, source_uri)
        self._seen: set[bytes] = set()

    @property
    def fields(self) -> Fields:
        """Every field the mapping reads."""
        declared = [self._id] if self._id else []
        required = (*declared, *self._template.fields)
        grouping = [self._grouping.name] if self._grouping is not None else []
        return Fields(required, (*(column.field for _, column in self._columns), *grouping))

    def map(self, record: Record | Flaw) -> Document | Reject:
        """The document, or the reject that says which rule the record broke."""
        if isinstance(record, Flaw):
            return Reject(self._uri, None, record.position, record.reason.name, record.detail)
        doc_id = None
        try:
            doc_id = self._doc_id(record)
            text = self._text(record.fields)
            metadata = self._metadata(record.fields)
            self._claim(doc_id, record.position)
        except RejectedInput as error:
            return Reject(self._uri, doc_id, record.position, error.reason, error.detail)
        group = self._group(record.fields, metadata) if self._grouping is not None else None
        return Document(doc_id, record.position, text, metadata, group)

    def _doc_id(self, record: Record) -> str:
        if self._id is None:
            return str(record.position)
        value = record.fields.get(self._id)
        doc_id = (
            value if type(value) is str else _id_text(self._id, _required(record.fields, self._id))
        )
        if not doc_id:
            raise RejectedInput(MISSING_FIELD, f"field {self._id!r} is an empty string")
        return _clean(doc_id, f"field {self._id!r}")

    def _text(self, fields: Mapping[str, object]) -> str:
        values: dict[str, str] = {}
        for name in self._template.fields:
            value = fields.get(name)
            values[name] = value if isinstance(value, str) else self._text_value(fields, name)
        text = _clean(self._template.render(values), "the text")
        if not text or text.isspace():
            raise RejectedInput(EMPTY_TEXT, "the text is empty or only white space")
        return text

    def _text_value(self, fields: Mapping[str, object], name: str) -> str:
        value = _required(fields, name)
        if isinstance(value, str):
            return value
        if self._template.is_plain:
            raise wrong_type(name, "string", value)
        if isinstance(value, UUID):
            return str(value)
        if not _is_number(value):
            raise wrong_type(name, "string or finite number", value)
        return _written(value)

    def _metadata(self, fields: Mapping[str, object]) -> dict[str, Scalar]:
        values: dict[str, Scalar] = {}
        for name, column in self._columns:
            raw = find(fields, column.field)
            if raw is ABSENT and name in self._folders:
                values[name] = _scalar(self._folders[name], column.field)
                continue
            value = None if raw is ABSENT else _readable(raw, column.field)
            values[name] = convert(value, column.type, column.field)
            if isinstance(value, str):
                _clean(value, f"field {column.field!r}")
        return values

    def _group(self, fields: Mapping[str, object], metadata: Mapping[str, Scalar]) -> str | None:
        """The value that a sample is taken per."""
        if self._grouping is None:
            return None
        try:
            value = find(fields, self._grouping.name)
        except RejectedInput:
            value = None
        return self._grouping.value(value, metadata, is_absent=value is ABSENT)

    def _claim(self, doc_id: str, position: int) -> None:
        """Only usable records claim their id, so a bad first one does not hide a good second."""
        if self._id is None:
            return
        key = id_digest(doc_id)
        if key in self._seen or position in self._duplicates:
            self._seen.add(key)
            raise RejectedInput(
                DUPLICATE_ID,
                f"id {shown(doc_id)} was already used in this file; the first record is kept",
            )
        self._seen.add(key)


ABSENT = object()
"""What ``find`` gives for a field that the record does not have."""


def find(fields: Mapping[str, object], name: str) -> object:
    """The value of the field of this name, else at the end of this path of names into objects.

    Gives ``ABSENT`` where the path ends early or an object on it is null. Raises ``RejectedInput``
    where something on it is no object.
    """
    rest, parent = name, fields
    while rest not in parent:
        step, dot, rest = rest.partition(".")
        inner = parent.get(step) if dot else None
        if inner is None:
            return ABSENT
        if not isinstance(inner, Mapping):
            on_path = name.removesuffix(f".{rest}")
            raise wrong_type(on_path, f"object, for the path {name!r}", _readable(inner, on_path))
        parent = inner
    return parent[rest]


def _required(fields: Mapping[str, object], name: str) -> object:
    value = _readable(find(fields, name), name)
    is_nan = isinstance(value, float) and math.isnan(value)  # how data frames write null
    if value is ABSENT or value is None or is_nan:
        there = f"the fields are {listed(fields)}" if fields else "the record has no fields"
        problem = f"is missing; {there}" if value is ABSENT else "is null"
        raise RejectedInput(MISSING_FIELD, f"field {name!r} {problem}")
    return value


def _scalar(value: Scalar | Undecodable, name: str) -> Scalar:
    return cast("Scalar", _readable(value, name))


def _readable(value: object, name: str) -> object:
    if isinstance(value, Undecodable):
        raise RejectedInput(value.reason, f"field {name!r}: {value.detail}")
    return value


def _id_text(name: str, value: object) -> str:
    """An id as text: a string, a whole number, a UUID; other numbers only from a typed column, for
    JSON writes 1.1 and 1.10 alike."""
    if isinstance(value, (str, UUID)):
        return str(value)
    if _is_number(value):
        number = whole(value)
        if number is not None:
            return str(number)
        if isinstance(value, (ColumnFloat, Decimal)):
            return _written(value)
    raise wrong_type(name, "string or int", value)


def _is_number(value: object) -> bool:
    """Whether a value is a number that a float64 could hold, whatever type it has."""
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an int of more than 308 digits
        return False


def _written(number: object) -> str:
    """A number's own digits; a decimal's without an exponent."""
    return f"{number:f}" if isinstance(number, Decimal) else str(number)


def _clean(text: str, what: str) -> str:
    """Refuse what breaks tokenizers (lone surrogates) and stores (NUL)."""
    try:
        text.isascii() or text.encode()
    except UnicodeEncodeError as error:
        code = f"U+{ord(text[error.start]):04X}"
        raise RejectedInput(
            LONE_SURROGATE, f"{what} holds {code}, half of a surrogate pair, at {error.start}"
        ) from error
    if "\0" in text:
        raise RejectedInput(NUL_CHARACTER, f"{what} holds a NUL character at {text.index(chr(0))}")
    return text
