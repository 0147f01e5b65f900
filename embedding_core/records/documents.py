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
    """0-based line or row of the record in its file; None when the whole file is rejected, and
    where only a row of the table is left to tell."""
    reason: str
    """A short fixed word, for example ``malformed_json``."""
    detail: str
    """What a person needs to find and fix it."""
    chunk_index: int | None = None
    """0-based place of the chunk in its document; None when a record or a file is rejected."""
    n_tokens: int | None = None
    """Tokens of the chunk, special tokens included, where they were counted."""
    text: str | None = None
    """The chunk's text, where the recipe asks for it."""


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
    title: str | None = None
    """Embedded before each chunk, and no part of its text; not blank."""
    uri: str = field(default="", compare=False)
    """The file that it is in."""
    group: str | None = None
    """Value of the field that a sample is taken per; None without a value, or without a sample."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a document: ``document.text[char_start:char_end] == text``."""

    index: int
    """0-based place in its document."""
    text: str
    """The exact characters of the document."""
    char_start: int
    """Offset of the first character in the document's text, in characters, 0-based."""
    char_end: int
    """Offset after the last character, in characters."""
    n_tokens: int
    """Tokens the model sees, of the context and special tokens too."""
    context: str | None = None
    """Embedded before the text: the document's title, the headings above the chunk."""
    metadata: Mapping[str, Scalar] = field(default_factory=dict)
    """Values of the columns that the chunk strategy adds to the table."""

    @property
    def embedded(self) -> str:
        """What the model reads."""
        return embedded_text(self.text, self.context)


CONTEXT_END = "\n"
"""Stands between a context and the text that it is embedded with."""


def embedded_text(text: str, context: str | None) -> str:
    """What the model reads of a row. ``lake.rows.embedded_texts`` does the same to columns."""
    return text if context is None else f"{context}{CONTEXT_END}{text}"
