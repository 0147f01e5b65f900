"""What an export says of itself: its rows, its columns, and the digest of each of its files.

It names no time and no machine: the same version of a table gives the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from embedding_core.errors import SetupError
from embedding_core.store.untrusted.json_text import read_json

MANIFEST = "manifest.json"
"""Written last: a folder that has it is complete."""
SPACE = "space.json"
"""The space of the vectors; an export without vectors has none."""
MANIFEST_VERSION = 1

FileKind = Literal["rows", "rejects", "recipe", "space", "card"]


@dataclass(frozen=True, slots=True)
class ExportedFile:
    """A file of an export."""

    path: str
    """Below the export's folder."""
    kind: FileKind
    size_bytes: int
    sha256: str
    shard: int | None = None
    """The shard that it belongs to; None for a file beside the rows."""
    rows: int | None = None
    """Rows of the shard, or rejects."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """An export that is complete."""

    recipe: str
    """Name of the recipe that made the table."""
    table: str
    table_version: int
    rejects_version: int | None
    """The version of the table of rejects; None without one."""
    space: Mapping[str, Any] | None
    """Space of the vectors with its ``space_id``; None without vectors."""
    cutter: Mapping[str, Any] | None
    """The tokenizer that texts were cut with, and its limits."""
    spec: Mapping[str, Any]
    """What was asked for."""
    columns: tuple[Mapping[str, str], ...]
    """Name, name in the table and type of each column, in order."""
    folders: Mapping[str, Any]
    """Value of each folder of the column that rows are split by."""
    rows: int
    files: tuple[ExportedFile, ...]
    """Sorted by path."""
    version: int = MANIFEST_VERSION
    """Version of this form."""

    def to_json(self) -> bytes:
        """Canonical: sorted and indented."""
        return to_json(asdict(self))

    @classmethod
    def from_json(cls, data: bytes, where: str) -> Manifest:
        """Raises ``SetupError`` for a manifest that embedlake did not write."""
        try:
            values = read_json(data)
            files = tuple(ExportedFile(**file) for file in values.pop("files"))
            columns = tuple(values.pop("columns"))
            manifest = cls(**values, files=files, columns=columns)
            if manifest.version != MANIFEST_VERSION:
                raise ValueError(f"it has version {manifest.version}, not {MANIFEST_VERSION}")
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise SetupError(
                f"{where} is no manifest of an export ({type(error).__name__}: {error}); it is "
                "damaged or of something else: name another folder or dataset"
            ) from error
        return manifest


def to_json(values: Any) -> bytes:
    """JSON whose bytes follow from the values alone."""
    text = json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False)
    return (text + "\n").encode()
