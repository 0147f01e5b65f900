"""The documents of a source that were chosen last, kept with the lake: a row per file.

It saves reading files again, and keeps chosen documents chosen while the source grows. Without it
every file is surveyed again, and the choice is the one of a new table.
"""

from __future__ import annotations

import io
import logging
from dataclasses import dataclass
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from embedding_core.lake.faults import store_faults
from embedding_core.lake.staging import new_file
from embedding_core.lake.table import Table
from embedding_core.store import storage
from embedding_core.store.layout import choice_path

log = logging.getLogger(__name__)

FILES_PER_GROUP = 1_024
DAMAGED = (pa.ArrowException, OSError, ValueError)
"""What comes of reading a file that is not what was written."""


@dataclass(frozen=True, slots=True)
class StoredChoice:
    """What was chosen last."""

    files: pa.Table
    """A row per file."""
    metadata: dict[str, str]
    """What the choice was made by."""


def read_choice(table: Table, columns: pa.Schema) -> StoredChoice | None:
    """Some columns of what was chosen last; None before that, and, with a warning, when it is
    damaged."""
    path = choice_path(table.lake.uri, table.name)
    fs = storage.filesystem(path, table.lake.storage)
    with store_faults(f"reading {path}"):
        if not fs.exists(path):
            return None
        try:
            with fs.open(path, "rb") as source:
                return _columns(source, columns)
        except DAMAGED:
            content = storage.read_bytes(path, table.lake.storage)  # else the store is at fault
    try:
        return _columns(io.BytesIO(content), columns)
    except DAMAGED as error:
        log.warning("%s is damaged (%s): documents are chosen as for a new table", path, error)
        return None


def _columns(source: IO[bytes], columns: pa.Schema) -> StoredChoice:
    files = pq.ParquetFile(source).read(columns=columns.names)
    if not files.schema.equals(columns):
        raise ValueError("it has other columns")
    files.validate(full=True)
    metadata = files.schema.metadata or {}
    return StoredChoice(files, {name.decode(): text.decode() for name, text in metadata.items()})


def write_choice(table: Table, choice: StoredChoice) -> None:
    """Keep what was chosen; the file appears complete or not at all."""
    path = choice_path(table.lake.uri, table.name)
    files = choice.files.replace_schema_metadata(choice.metadata)
    with new_file(table, path) as target:
        pq.write_table(
            files,
            target,
            row_group_size=FILES_PER_GROUP,
            use_dictionary=False,
            write_statistics=False,  # of values that may have a gigabyte
            compression="none",  # digests do not get smaller
        )
