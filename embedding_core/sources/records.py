"""What readers of a file format hand over: raw records, flaws, and values that cannot be read.

Formats know how bytes become fields; ``mapping`` knows what the fields must be.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import RawIOBase
from typing import Protocol

from embedding_core.records import Slice, SourceFile


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
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Undecodable:
    """Stands in a record for a value whose bytes are not what the file says they are."""

    reason: str
    detail: str


class Reader(Protocol):
    """Reads one family of formats.

    ``stream`` is unbuffered and seekable, at the start of the file; ``fields`` are the only ones
    needed. Yields in file order with memory bounded by one record or batch; raises
    ``RejectedInput`` when the file as a whole is bad.
    """

    def __call__(
        self, stream: RawIOBase, file: SourceFile, fields: tuple[str, ...]
    ) -> Iterator[Record | Flaw]:
        """Stream the records of an open file."""
        ...


class SliceReader(Protocol):
    """Reads the records of one slice; positions are those in the whole file."""

    def __call__(
        self, stream: RawIOBase, file: SourceFile, fields: tuple[str, ...], part: Slice
    ) -> Iterator[Record | Flaw]:
        """Stream the records of a slice of an open file."""
        ...


SHOWN_CHARACTERS = 80
"""Characters of a bad value that a message shows."""


def shown(value: object) -> str:
    """A short printable form of a bad value: never a lone surrogate, NUL or a megabyte."""
    text = repr(value[:SHOWN_CHARACTERS] if isinstance(value, str) else value)
    return text if len(text) <= SHOWN_CHARACTERS + 2 else text[:SHOWN_CHARACTERS] + "…"


def type_name(value: object) -> str:
    """A value's type in words that do not need Python: ``string``, ``list``, ``null``."""
    return _TYPE_NAMES.get(type(value), type(value).__name__)


_TYPE_NAMES = {
    str: "string",
    int: "int",
    float: "float",
    bool: "bool",
    list: "list",
    dict: "object",
    type(None): "null",
}
