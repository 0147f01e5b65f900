"""Files of the same records in several formats, and what is read of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq

from embedding_core.recipe import SourceSpec
from embedding_core.records import Document, Reject
from embedding_core.sources import discover, read_documents

NESTED = ("jsonl", "json", "parquet", "arrow")
"""Formats whose fields may be objects and lists."""

Items = list[Document | Reject]


def write(folder: Path, format: str, records: Sequence[Any]) -> Path:
    """A file of the records."""
    path = folder / f"a.{format}"
    if format == "json":
        path.write_text(json.dumps(records))
    elif format == "parquet":
        pq.write_table(pa.Table.from_pylist(list(records)), path)
    elif format == "arrow":
        feather.write_feather(pa.Table.from_pylist(list(records)), path)
    else:
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def read(path: Path, **mapping: Any) -> Items:
    """The documents and rejects of a file."""
    spec = SourceSpec(uri=str(path), **mapping)
    (file,) = discover(spec).files
    return list(read_documents(file, spec))


def read_records(folder: Path, *records: Any, format: str = "jsonl", **mapping: Any) -> Items:
    """The documents and rejects of records in a file of a format."""
    return read(write(folder, format, records), **mapping)


def texts(items: Items) -> list[str]:
    """The texts of items that are all documents."""
    assert [item for item in items if isinstance(item, Reject)] == []
    return [item.text for item in items if isinstance(item, Document)]


def rejects(items: Items) -> list[tuple[int | None, str, str]]:
    """Position, reason and detail of each reject."""
    return [(item.position, item.reason, item.detail) for item in items if isinstance(item, Reject)]
