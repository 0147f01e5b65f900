"""What a file says: documents, the chunks they are cut into, and what was left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

Scalar = str | int | float | bool | datetime | None
"""What a metadata column may hold."""

ColumnType = Literal["string", "int", "float", "bool", "timestamp"]
"""Declared type of a metadata column; a timestamp is kept in UTC, to the microsecond."""


@dataclass(frozen=True, slots=True)
class Reject:
    """One thing that was left out, and why. Nothing is dropped without one."""

    source_uri: str
    """The file it was in."""
    doc_id: str | None
    """The document's id, when it was read far enough to have one."""
    position: int | None
    """0-based: line (JSONL), row (Parquet) or chunk index; None when the whole file is rejected."""
    reason: str
    """A short fixed word, for example ``malformed_json``."""
    detail: str
    """What a person needs to find and fix it."""


@dataclass(frozen=True, slots=True)
class Document:
    """One record of a source file, its text rendered and validated."""

    doc_id: str
    """Unique within its file: the declared id field, or the position when none is declared."""
    position: int
    """0-based line or row in the file."""
    text: str
    """Valid Unicode: no lone surrogate, no NUL character, not blank."""
    metadata: Mapping[str, Scalar] = field(default_factory=dict)
    """Values of the declared metadata columns, of the declared types."""
    group: str | None = None
    """Value of the field that a sample is taken per; None without a value, or without a sample."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a document: ``document.text[char_start:char_end] == text``."""

    index: int
    """0-based place in its document."""
    text: str
    """The exact characters that are embedded."""
    char_start: int
    """Offset of the first character in the document's text, in characters, 0-based."""
    char_end: int
    """Offset after the last character, in characters."""
    n_tokens: int
    """Tokens the model sees for this text, special tokens included."""
