"""What file formats hand over, and what they share.

Formats know how bytes become fields; ``mapping`` knows what the fields must be. A format is a
module beside this one and a line in ``KNOWN_FORMATS`` (``recipe.formats``), or a package with an
entry point.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from io import RawIOBase
from itertools import islice, repeat
from typing import Any, Protocol, runtime_checkable
from uuid import UUID

from pydantic import field_validator

from embedding_core import reasons
from embedding_core.errors import RejectedInput
from embedding_core.plurals import counted
from embedding_core.reasons import Reason
from embedding_core.recipe.formats import FormatOptions
from embedding_core.recipe.mapping.field_path import FieldPath
from embedding_core.records import SourceFile, Span


@dataclass(frozen=True, slots=True)
class Record:
    """One record as the file has it."""

    position: int
    """0-based line or row."""
    fields: Mapping[str, object]
    """Values by field name, as the format's own Python types."""


@dataclass(frozen=True, slots=True)
class Flaw:
    """A record that cannot even be split into fields."""

    position: int
    """0-based line or row."""
    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class Rows:
    """Records that follow each other in a file, as columns."""

    first_position: int
    columns: Mapping[str, list[Any]]
    """Values by field; null where a record does not have it."""
    n_rows: int
    objects: list[dict[str, object]] | None = None
    """The records, where they have other fields than those of the columns."""

    def records(self) -> Iterator[Record]:
        """Each record by itself."""
        objects = self.objects
        if objects is None:
            fields = list(self.columns)
            objects = [dict(zip(fields, row, strict=True)) for row in self._values()]
        return map(Record, range(self.first_position, self.first_position + self.n_rows), objects)

    def _values(self) -> Iterator[tuple[object, ...]]:
        if not self.columns:
            return repeat((), self.n_rows)
        return zip(*self.columns.values(), strict=True)


@runtime_checkable
class ReadsRows(Protocol):
    """A format that gives many records at once, which are mapped in a fraction of the time."""

    def rows(
        self, stream: RawIOBase, file: SourceFile, fields: Fields, span: Span | None = None
    ) -> Iterator[Rows | Record | Flaw]:
        """What ``Format.records`` gives, records in a row together."""
        ...


@dataclass(frozen=True, slots=True)
class Undecodable:
    """Stands in a record for a value whose bytes are not what the file says they are."""

    reason: Reason
    detail: str


EXACT_BELOW = 2.0**53
"""A float64 holds every whole number below this; beyond, a value may stand for several."""


class Cell(str):
    """A value of a format that has texts alone: a declared column reads it as its type."""


class ColumnFloat(float):
    """A number of a typed column; its text has the digits of the column's own precision.

    A float32 of 0.1 is ``0.1``, though as a float64 it is 0.10000000149.
    """

    digits: str
    """The shortest that give the value back in the column's precision."""
    exact_below: float
    """The column holds every whole number below this; beyond, a value may stand for several."""

    def __new__(cls, value: float, digits: str, exact_below: float = EXACT_BELOW) -> ColumnFloat:
        """A number of the column."""
        number = super().__new__(cls, value)
        number.digits, number.exact_below = digits, exact_below
        return number

    def __repr__(self) -> str:
        return self.digits


@dataclass(frozen=True, slots=True)
class Fields:
    """What a mapping reads of a record: names, or paths (``recipe.mapping.field_path``)."""

    required: tuple[str, ...]
    """A record without them cannot be used."""
    optional: tuple[str, ...] = ()
    """Null where a record does not have them."""
    everything: bool = False
    """Whether all fields are read, whatever their names."""

    @property
    def all(self) -> tuple[str, ...]:
        """Each once."""
        return tuple(dict.fromkeys([*self.required, *self.optional]))

    def asks_for(self, name: str) -> bool:
        """Whether a field of this name is read, or something in it."""
        return self.everything or any(
            name in (field, FieldPath.parse(field).root) for field in self.all
        )


class Fit(Enum):
    """How well a file's content fits a format."""

    NONE = "it is another format"
    POSSIBLE = "it may be this format, if its name says so"
    LIKELY = "it looks like this format, and is, unless its name says otherwise"
    CERTAIN = "it is this format, whatever its name says"


class TextOptions(FormatOptions):
    """How the bytes of a text are read."""

    encoding: str = "utf-8"
    """Encoding of the text, by Python's name for it: ``latin-1``, ``cp1252``."""

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, encoding: str) -> str:
        try:
            "".encode(encoding)
        except LookupError as error:
            raise ValueError(
                f"{encoding!r} is no encoding of texts; use one such as latin-1"
            ) from error
        return encoding


class TextFormat:
    """What formats of text share: they are read from beginning to end, so they may be compressed.

    A format sets ``suffixes`` and has ``records``; see ``Format``.
    """

    suffixes: tuple[str, ...] = ()
    options: FormatOptions = FormatOptions()
    is_text = True

    def fit(self, head: bytes, stream: RawIOBase) -> Fit:
        """See ``Format``: the name decides."""
        return Fit.POSSIBLE

    def spans(self, stream: RawIOBase, file: SourceFile, target_bytes: int) -> Iterator[Span]:
        """See ``Format``: a file is read as a whole."""
        return iter(())

    def bytes_per_record(self, stream: RawIOBase, file: SourceFile) -> float | None:
        """See ``Format``: it cannot be told."""
        return None


SHOWN_CHARACTERS = 80
"""Characters of a bad value that a message shows."""


def shown(value: object) -> str:
    """A short printable form of a bad value: never a lone surrogate, NUL or a megabyte, and never
    the whole of a list that is nested as deep as a parser goes."""
    if isinstance(value, (Decimal, UUID, date, time, timedelta)):
        return str(value)
    if isinstance(value, (str, bytes)):
        value = value[:SHOWN_CHARACTERS]
    text = repr(value) if isinstance(value, str) else _SHORT.repr(value)
    return text if len(text) <= SHOWN_CHARACTERS + 2 else text[:SHOWN_CHARACTERS] + "…"


NAMES_SHOWN = 12
"""Names of fields or columns that a message lists."""


def no_column(field: str, names: Iterable[str]) -> str:
    """What is wrong with a file that lacks a column, and what to do."""
    return (
        f"no column {field!r}; the file has {listed(names)}; correct source.text and source.id, or "
        "leave the file out by source.exclude if it is none of the source's"
    )


def listed(names: Iterable[str]) -> str:
    """The first names of a file's columns or a record's fields, for a person who named another."""
    first = list(islice(names, NAMES_SHOWN + 1))
    more = ", …" if len(first) > NAMES_SHOWN else ""
    return ", ".join(map(shown, first[:NAMES_SHOWN])) + more


class _Short(reprlib.Repr):
    """``reprlib``, but of numbers too long to be written out as well."""

    def repr_int(self, x: int, level: int) -> str:
        """The digits, or how many bits there are."""
        try:
            return super().repr_int(x, level)
        except ValueError:  # Python writes no more than some thousand digits
            return f"of {counted(x.bit_length(), 'bit')}"


_SHORT = _Short()
_SHORT.maxlevel = 3
_SHORT.maxlong = _SHORT.maxother = 2 * SHOWN_CHARACTERS


def type_name(value: object) -> str:
    """A value's type in words that do not need Python: ``string``, ``list``, ``null``."""
    names = (_TYPE_NAMES[kind] for kind in type(value).__mro__ if kind in _TYPE_NAMES)
    return next(names, type(value).__name__)


def wrong_type(name: str, expected: str, value: object, advice: str = "") -> RejectedInput:
    """The reject of a record whose field holds a value of another type, with what to do.

    ``advice`` stands for what is advised about any value of its type.
    """
    advice = advice or _ADVICE.get(type_name(value), "")
    return RejectedInput(
        reasons.WRONG_TYPE,
        f"field {name!r}: expected {expected}, got {type_name(value)} {shown(value)}"
        + (f"; {advice}" if advice else ""),
    )


_TYPE_NAMES: dict[type, str] = {
    str: "string",
    int: "int",
    float: "float",
    Decimal: "decimal",
    bool: "bool",
    list: "list",
    dict: "object",
    type(None): "null",
    bytes: "binary",
    date: "date",
    datetime: "timestamp",
    time: "time",
    timedelta: "duration",
    UUID: "uuid",
}

_ADVICE = {
    "list": "name an item by a path such as 'items[0]', or write its items as one string",
    "object": "name a field in it by a path such as 'object.field'",
    "binary": "write it as a string column, with the type string",
    "time": "write it as a string",
    "duration": "write it as a number",
    "date": "declare it as timestamp, or write it as a string",
    "timestamp": "declare it as timestamp, or write it as a string",
    "int": "write it as a string",
    "float": "write it as a string",
    "bool": "write it as a string",
}
