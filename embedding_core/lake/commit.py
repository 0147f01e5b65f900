"""One atomic commit for a group of files: old rows go and new fragments come together, or not.

Workers write fragments into the table's storage without committing; one process commits. Before
each commit it looks at what is there, so a commit whose reply was lost is never made twice.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import lance
import pyarrow as pa
from lance.fragment import FragmentMetadata

from embedding_core import storage
from embedding_core.lake.faults import store_faults, tried_again
from embedding_core.lake.filters import KEYS_PER_SCAN, is_in
from embedding_core.lake.table import Table


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
    tried again on the newer version; a commit whose reply was lost is recognised by its files.
    """

    def once(dataset: lance.LanceDataset, attempt: int) -> int:
        if attempt > 1 and fragments and len(_ids_of(dataset, fragments)) == len(fragments):
            return int(dataset.version)
        dropped = _drop(dataset, column, _locate(dataset, column, values))
        return _commit(table, dataset, dropped, fragments)

    return tried_again(f"commit to {table.uri}", lambda attempt: once(table.dataset(), attempt))


def withdraw_second_copies(table: Table, fragments: Sequence[str]) -> int:
    """Delete our rows of files that another run committed before us; the version without them.

    Two runs over the same files make the same rows, and Lance lets both append. Fragment ids grow
    from commit to commit, so both runs see alike who came second, and that one withdraws.
    """

    def once(dataset: lance.LanceDataset, _attempt: int) -> int:
        own = _ids_of(dataset, fragments)
        if not own:
            return int(dataset.version)
        held = _locate(dataset, "file_key", _keys_in(dataset, own))
        first = {key for one, keys in held.items() if one < min(own) for key in keys}
        second = {one: held[one] & first for one in own if held[one] & first}
        return _commit(table, dataset, _drop(dataset, "file_key", second), ())

    return tried_again(f"commit to {table.uri}", lambda attempt: once(table.dataset(), attempt))


def _commit(
    table: Table, dataset: lance.LanceDataset, dropped: _Dropped, fragments: Sequence[str]
) -> int:
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


def _drop(
    dataset: lance.LanceDataset, column: str, by_fragment: Mapping[int, Collection[str]]
) -> _Dropped:
    """Mark rows deleted in each fragment, by their values of ``column``; commits nothing."""
    dropped = _Dropped([], [])
    for fragment_id, values in sorted(by_fragment.items()):
        left = dataset.get_fragment(fragment_id).delete(is_in(column, values))
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


def _ids_of(dataset: lance.LanceDataset, fragments: Sequence[str]) -> list[int]:
    """Ids that these fragments got in the table, by their data files; those not in it have none."""
    paths = {
        data_file.path
        for fragment in fragments
        for data_file in FragmentMetadata.from_json(fragment).files
    }
    return [
        fragment.fragment_id
        for fragment in dataset.get_fragments()
        if any(data_file.path in paths for data_file in fragment.metadata.files)
    ]


def _keys_in(dataset: lance.LanceDataset, fragment_ids: Sequence[int]) -> set[str]:
    """File keys of all rows of some fragments."""
    fragments = [dataset.get_fragment(one) for one in fragment_ids]
    batches = dataset.scanner(columns=["file_key"], fragments=fragments).to_batches()
    return {key for batch in batches for key in batch.column("file_key").unique().to_pylist()}
