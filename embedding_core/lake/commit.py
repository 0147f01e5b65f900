"""One atomic commit for a group of files: old rows go and new fragments come together, or not.

Workers write fragments into the table's storage without committing; one process commits. Before
each commit it looks at what is there, so a commit whose reply was lost is never made twice.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import lance
import pyarrow as pa
from lance.fragment import FragmentMetadata

from embedding_core import storage
from embedding_core.errors import Transient
from embedding_core.lake.faults import store_faults
from embedding_core.lake.filters import KEYS_PER_SCAN, is_in
from embedding_core.lake.table import Table

ATTEMPTS = 5
"""Commits tried when maintenance or a store fault comes between; backoff doubles from 0.2 s."""
FIRST_PAUSE_SECONDS = 0.2


def write_fragments(
    table: Table, rows: Iterator[pa.RecordBatch], arrow_schema: pa.Schema
) -> tuple[str, ...]:
    """Write rows into the table's storage as uncommitted fragments, batch by batch.

    Returns the fragments' metadata as JSON; until a commit names them no reader sees a row.
    """
    with store_faults(f"writing rows into {table.uri}"):
        fragments = lance.fragment.write_fragments(
            pa.RecordBatchReader.from_batches(arrow_schema, rows),
            table.uri,
            schema=arrow_schema,
            mode="append",
            storage_options=table.lake.options(),
        )
    return tuple(json.dumps(fragment.to_json()) for fragment in fragments)


def fragments_exist(table: Table, fragments: Sequence[str]) -> bool:
    """Whether the data files of uncommitted fragments are still in the table's storage."""
    fs = storage.filesystem(table.uri, table.lake.storage)
    with store_faults(f"looking for data files of {table.uri}"):
        return all(
            fs.exists(storage.join(table.uri, "data", data_file.path))
            for fragment in fragments
            for data_file in FragmentMetadata.from_json(fragment).files
        )


def replace_rows(
    table: Table, column: str, values: Collection[str], fragments: Sequence[str]
) -> int:
    """Drop the rows whose ``column`` is one of ``values`` and add ``fragments``, in one commit.

    Returns the version that holds the change. A conflict with a writer or with maintenance is
    tried again on the newer version.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _replace_once(table, column, values, fragments)
        except Transient:
            if attempt == ATTEMPTS or _is_committed(table, fragments):
                break
            time.sleep(FIRST_PAUSE_SECONDS * 2**attempt * random.uniform(0.5, 1.5))
    if _is_committed(table, fragments):
        return int(table.dataset().version)
    raise Transient(
        f"could not commit to {table.uri} in {ATTEMPTS} attempts; nothing was changed; "
        "look for another writer or a failing store, then run the same command again"
    )


def _replace_once(
    table: Table, column: str, values: Collection[str], fragments: Sequence[str]
) -> int:
    dataset = table.dataset()
    dropped = _drop(dataset, column, values)
    added = [FragmentMetadata.from_json(fragment) for fragment in fragments]
    if not (added or dropped.removed or dropped.updated):
        return int(dataset.version)
    operation = (
        lance.LanceOperation.Update(
            removed_fragment_ids=dropped.removed,
            updated_fragments=dropped.updated,
            new_fragments=added,
        )
        if dropped.removed or dropped.updated
        else lance.LanceOperation.Append(added)
    )
    with store_faults(f"committing to {table.uri}"):
        committed = lance.LanceDataset.commit(
            table.uri,
            operation,
            read_version=dataset.version,
            storage_options=table.lake.options(),
        )
    return int(committed.version)


@dataclass(frozen=True, slots=True)
class _Dropped:
    removed: list[int]
    """Ids of fragments with no row left."""
    updated: list[FragmentMetadata]
    """Fragments with a new deletion file."""


def _drop(dataset: lance.LanceDataset, column: str, values: Collection[str]) -> _Dropped:
    """Mark the rows deleted in each fragment that holds some; nothing is committed."""
    by_fragment = _locate(dataset, column, values)
    dropped = _Dropped([], [])
    for fragment_id, present in sorted(by_fragment.items()):
        left = dataset.get_fragment(fragment_id).delete(is_in(column, present))
        if left is None:
            dropped.removed.append(fragment_id)
        else:
            dropped.updated.append(left)
    return dropped


def _locate(
    dataset: lance.LanceDataset, column: str, values: Collection[str]
) -> dict[int, set[str]]:
    """Which fragments hold rows of which values, by the scalar index where there is one."""
    found: dict[int, set[str]] = {}
    ordered = sorted(values)
    for start in range(0, len(ordered), KEYS_PER_SCAN):
        scanner = dataset.scanner(
            columns=[column],
            filter=is_in(column, ordered[start : start + KEYS_PER_SCAN]),
            with_row_address=True,
        )
        for batch in scanner.to_batches():
            for value, address in zip(
                batch.column(column).to_pylist(), batch.column("_rowaddr").to_pylist(), strict=True
            ):
                found.setdefault(address >> 32, set()).add(value)  # high half: fragment id
    return found


def _is_committed(table: Table, fragments: Sequence[str]) -> bool:
    """Whether the table already holds these fragments' data files: the reply was lost, not the
    commit. Without fragments there is nothing to recognise, and dropping rows twice is harmless."""
    if not fragments:
        return False
    held = {
        data_file.path
        for fragment in table.dataset().get_fragments()
        for data_file in fragment.metadata.files
    }
    return all(
        data_file.path in held
        for fragment in fragments
        for data_file in FragmentMetadata.from_json(fragment).files
    )
