"""Staged work: a folder per work unit beside the lake, until the unit is committed.

    rows.arrow             rows without vectors, from the chunk unit
    ids.npy                ids that a slice of a huge file used
    rejects*.arrow         rejects of the chunk unit and of each part embedded
    part-<number>.json     fragments and counts of an embedded part of the unit
    report.json            the result of the unit's embed task

Staging only saves time: lost files are made again from the source.
"""

from __future__ import annotations

import errno
import json
import logging
import uuid
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from embedding_core.errors import EmbedlakeError, LakeError
from embedding_core.lake import schema
from embedding_core.lake.disk.checksums import checksums
from embedding_core.lake.faults import store_faults
from embedding_core.lake.table import Table
from embedding_core.records import Reject
from embedding_core.store import storage
from embedding_core.store.layout import staged_folder
from embedding_core.store.untrusted import json_text

log = logging.getLogger(__name__)

ROWS = "rows.arrow"
REPORT = "report.json"
REJECTS_PER_BATCH = 1_024

REJECT_CHARACTERS_PER_BATCH = 4_000_000
"""Characters of rejected texts that wait in memory; some 16 MB at most."""


def staging_folder(table: Table) -> str:
    """URI of a table's staged units. LanceDB lists only ``*.lance``, so readers do not see it."""
    return staged_folder(table.lake.uri, table.name)


def check_no_link(table: Table, folder: str) -> None:
    """Raise ``LakeError`` where a link leads out of the lake on the way to one of its folders:
    files that are removed there would be somebody else's."""
    if (link := storage.link_to(folder, table.lake.uri)) is not None:
        raise LakeError(f"{link} is a link, and a lake has none; remove it")


def staged_path(table: Table, unit_id: str, name: str = ROWS) -> str:
    """URI of one of a unit's staged files."""
    return f"{staging_folder(table)}/{unit_id}/{name}"


def is_of_unit(table: Table, unit_id: str, path: str) -> bool:
    """Whether a path that was saved is that of one of the unit's staged files: whoever may write
    to the lake may have changed it, to have another file read."""
    folder, _, name = path.rpartition("/")
    return folder == f"{staging_folder(table)}/{unit_id}" and name not in ("", ".", "..")


def write_staged(
    table: Table, path: str, arrow_schema: pa.Schema, rows: Iterable[pa.RecordBatch]
) -> int:
    """Write rows as they come; the file appears complete or not at all. Returns the row count."""
    n_rows = 0
    with new_file(table, path) as sink, pa.ipc.new_stream(sink, arrow_schema) as writer:
        for batch in rows:
            writer.write_batch(batch)
            n_rows += batch.num_rows
    return n_rows


@contextmanager
def new_file(table: Table, path: str) -> Iterator[IO[bytes]]:
    """A file to be written; it appears complete or not at all."""
    fs = storage.filesystem(path, table.lake.storage)
    local = storage.is_local(path)
    # On S3 the object appears when its upload is completed; on disk it is renamed into place.
    target = f"{path}.{uuid.uuid4().hex}.partial" if local else path
    with store_faults(f"staging {path}"):
        if local:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        try:
            with fs.open(target, "wb") as sink:
                yield sink
            if local:
                storage.replace_flushed(Path(target), Path(path))
        finally:
            if local:
                Path(target).unlink(missing_ok=True)


class RejectWriter:
    """Writes rejects to a staged file as they come, so that a million need no memory."""

    def __init__(self, writer: pa.RecordBatchWriter) -> None:
        self._writer = writer
        self._waiting: list[Reject] = []
        self._n_characters = 0
        self.n_rejects = 0

    def add(self, reject: Reject) -> None:
        """Write one reject."""
        self._waiting.append(reject)
        self._n_characters += len(reject.text or "")
        self.n_rejects += 1
        is_full = len(self._waiting) == REJECTS_PER_BATCH
        if is_full or self._n_characters >= REJECT_CHARACTERS_PER_BATCH:
            self.flush()

    def flush(self) -> None:
        """Write the rejects collected so far."""
        for batch in reject_batches(self._waiting):
            self._writer.write_batch(batch)
        self._waiting, self._n_characters = [], 0


@contextmanager
def reject_writer(table: Table, path: str) -> Iterator[RejectWriter]:
    """A writer for one staged file of rejects."""
    with new_file(table, path) as sink, pa.ipc.new_stream(sink, schema.STAGED_REJECTS) as writer:
        rejects = RejectWriter(writer)
        yield rejects
        rejects.flush()


def reject_batches(rejects: Iterable[Reject]) -> Iterator[pa.RecordBatch]:
    """Rejects as Arrow, in ``schema.STAGED_REJECTS``."""
    rows = [asdict(reject) for reject in rejects]
    if rows:
        values = pa.RecordBatch.from_pylist(rows, schema=schema.REJECT_FIELDS).columns
        yield pa.RecordBatch.from_arrays([*values, checksums(values)], schema=schema.STAGED_REJECTS)


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


def has_rejects(table: Table, path: str) -> bool:
    """Whether a staged file of rejects is there and is what was written; a warning says why not.

    Raises ``LakeError`` or ``Transient`` when the store fails.
    """
    try:
        for batch in read_staged(table, path):
            batch.validate(full=True)
            if batch.schema != schema.STAGED_REJECTS:
                raise pa.ArrowInvalid(f"its columns are {batch.schema.names}")
            if batch.column(schema.CHECKSUM) != checksums(batch.columns[:-1]):
                raise pa.ArrowInvalid("its lines are not what was written")
    except (EmbedlakeError, pa.ArrowException) as error:
        cause = error.__cause__ if isinstance(error, EmbedlakeError) else error
        if isinstance(cause, OSError) and cause.errno not in (None, errno.ENOENT):
            raise  # Arrow's own error for what it cannot read has no number
        log.warning("%s is damaged (%s): its work is done again", path, error)
        return False
    return True


def save_bytes(table: Table, path: str, content: bytes) -> None:
    """Write a staged file whole; it appears complete or not at all."""
    with store_faults(f"writing {path}"):
        storage.write_bytes(path, content, table.lake.storage)


def load_bytes(table: Table, path: str) -> bytes:
    """A staged file, whole."""
    with store_faults(f"reading {path}"):
        return storage.read_bytes(path, table.lake.storage)


def save_json(table: Table, path: str, content: Any) -> None:
    """Write a small record; it appears complete or not at all."""
    save_bytes(table, path, json.dumps(content).encode())


def read_json(table: Table, path: str) -> Any:
    """A saved record; None when it is missing, or, with a warning, damaged."""
    with store_faults(f"reading {path}"):
        try:
            return json_text.read_json(storage.read_bytes(path, table.lake.storage))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ValueError as error:
            log.warning("%s is damaged (%s): its work is done again", path, error)
            return None


def staged_units(table: Table) -> Counter[str]:
    """Ids of units that have a folder, with the number of its files."""
    folder = staging_folder(table)
    fs = storage.filesystem(folder, table.lake.storage)
    with store_faults(f"listing {folder}"):
        if not fs.exists(folder):
            return Counter()
        return Counter(str(path).rstrip("/").split("/")[-2] for path in fs.find(folder))


def drop_staged(table: Table, unit_ids: Collection[str]) -> None:
    """Remove the staged files of committed units; missing files are fine."""
    fs = storage.filesystem(table.lake.uri, table.lake.storage)
    for unit_id in unit_ids:
        folder = storage.join(staging_folder(table), unit_id)
        with store_faults(f"removing {folder}"):
            if fs.exists(folder):
                fs.rm(folder, recursive=True)
