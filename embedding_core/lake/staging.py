"""Staged rows: one Arrow IPC stream per work unit, beside the lake.

Staging only saves time: a staged file that is gone is made again from the source.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa

from embedding_core import storage
from embedding_core.lake.faults import store_faults
from embedding_core.lake.table import Table


def staging_folder(table: Table) -> str:
    """Where a table's staged units are; LanceDB lists only ``*.lance``, so readers see none."""
    return storage.join(table.lake.uri, "_embedlake", table.name, "staged")


def staged_path(table: Table, unit_id: str) -> str:
    """URI of a unit's staged file."""
    return storage.join(staging_folder(table), f"{unit_id}.arrow")


def write_staged(table: Table, path: str, schema: pa.Schema, rows: Iterable[pa.RecordBatch]) -> int:
    """Write rows as they come; the file appears complete or not at all. Returns the row count."""
    fs = storage.filesystem(path, table.lake.storage)
    local = storage.is_local(path)
    # On S3 the object appears when its upload is completed; on disk it is renamed into place.
    target = f"{path}.{uuid.uuid4().hex}.partial" if local else path
    n_rows = 0
    with store_faults(f"staging {path}"):
        if local:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        try:
            with fs.open(target, "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
                for batch in rows:
                    writer.write_batch(batch)
                    n_rows += batch.num_rows
            if local:
                Path(target).replace(path)
        finally:
            if local:
                Path(target).unlink(missing_ok=True)
    return n_rows


def is_staged(table: Table, path: str) -> bool:
    """Whether the staged file is still there."""
    with store_faults(f"looking for {path}"):
        return bool(storage.filesystem(path, table.lake.storage).exists(path))


def read_staged(table: Table, path: str) -> Iterator[pa.RecordBatch]:
    """The staged rows, batch by batch, in file order."""
    fs = storage.filesystem(path, table.lake.storage)
    with (
        store_faults(f"reading {path}"),
        fs.open(path, "rb") as source,
        pa.ipc.open_stream(source) as reader,
    ):
        yield from reader


def drop_staged(table: Table, paths: Iterable[str]) -> None:
    """Forget staged files whose rows are committed; one that is gone already is fine."""
    fs = storage.filesystem(table.lake.uri, table.lake.storage)
    for path in paths:
        with store_faults(f"removing {path}"):
            if fs.exists(path):
                fs.rm_file(path)
