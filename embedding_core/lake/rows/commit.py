"""One atomic commit for a group of files: old rows are dropped and new fragments added together.

Workers write fragments into the table's storage without committing; one process commits. It looks
at the table before each commit, so a commit whose reply was lost is never made twice.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import lance
import pyarrow as pa
from lance.fragment import FragmentMetadata

from embedding_core.errors import LakeError, Switched, Transient
from embedding_core.identity import SHOWN_DIGITS
from embedding_core.lake import schema
from embedding_core.lake.damage import wrong_sizes
from embedding_core.lake.disk.flushing import flush_fragments, flush_version
from embedding_core.lake.faults import store_faults, tried_again
from embedding_core.lake.filters import is_in
from embedding_core.lake.rows.saved_fragments import are_own
from embedding_core.lake.scans import scan, scan_values
from embedding_core.lake.snapshot import Snapshot
from embedding_core.lake.table import Table

Check = Callable[[Snapshot], None]
"""Looks at a version of a table before a commit builds on it, and raises to refuse."""


def write_fragments(
    table: Table, rows: Iterator[pa.RecordBatch], arrow_schema: pa.Schema
) -> tuple[str, ...]:
    """Write rows into the table's storage as uncommitted fragments, batch by batch.

    Returns the fragments' metadata as JSON; until a commit names them no reader sees a row, and
    their files are on the disk by then. What
    ``rows`` raises comes out as it is: Lance would make an error of its store of it. Raises
    ``Transient`` when a file is not as long as it should be: Lance can lose a failed write.
    """
    raised: list[BaseException] = []

    def watched() -> Iterator[pa.RecordBatch]:
        try:
            yield from rows
        except BaseException as error:
            raised.append(error)
            raise

    try:
        fragments = lance.fragment.write_fragments(
            pa.RecordBatchReader.from_batches(arrow_schema, watched()),
            table.uri,
            schema=arrow_schema,
            mode="append",
            storage_options=table.lake.options,
        )
    except BaseException as error:
        if raised:
            raise raised[0] from error
        with store_faults(f"writing rows into {table.uri}"):
            raise
    check_sizes(table, fragments)
    flush_fragments(table.uri, fragments)
    return tuple(json.dumps(fragment.to_json()) for fragment in fragments)


def fragments_exist(table: Table, fragments: Sequence[str]) -> bool:
    """Whether uncommitted fragments can be committed: their data files are in the table's storage,
    as long as their metadata says, and the column they have vectors for is in service.

    False, too, for what is no metadata of fragments of the table's own files.
    """
    if not are_own(fragments) or (fragments and not _serves(table.dataset(), fragments)):
        return False
    written = map(FragmentMetadata.from_json, fragments)
    return not wrong_sizes(table.uri, table.lake.storage, written)


def check_sizes(table: Table, fragments: Iterable[FragmentMetadata]) -> None:
    """Raise ``Transient`` when a data file of uncommitted fragments is not what was written."""
    if wrong := wrong_sizes(table.uri, table.lake.storage, fragments):
        raise Transient(
            f"{wrong[0]} in {table.uri}: a write was lost, and nothing was committed; look whether "
            "the disk is full or failing, then run the same command again"
        )


def replace_rows(
    table: Table | Snapshot,
    column: str,
    values: Collection[str],
    fragments: Sequence[str],
    space_id: str | None = None,
    check: Check = lambda _snapshot: None,
    unique: str | None = None,
) -> Snapshot:
    """Drop the rows whose ``column`` has one of ``values`` and add ``fragments``, in one commit.

    Returns a snapshot that holds the change. A conflict with a writer or with maintenance is
    tried again on the newer version; a commit whose reply was lost shows in the table's history.

    ``space_id``: the space of the fragments' vectors. Raises ``Switched``, and commits nothing,
    when another space came into service. A switch of spaces is a conflict, so none goes unseen.
    ``check`` looks at the very version that the commit builds on; what it raises ends the commit.
    ``unique``: a column by whose values a commit replaces rows, see ``withdraw_second_copies``,
    which a commit right upon the snapshot that was given does without: nobody came between.
    A snapshot saves opening the table when it is still the newest version.
    Raises ``Transient`` when a data file of ``fragments`` is not as long as it should be.
    """
    tried: dict[str, int] = {}  # versions that transactions built on, by their ids

    def attempt_once(snapshot: Snapshot) -> Snapshot:
        if tried and _has_committed(snapshot.dataset, tried):
            flush_version(snapshot.dataset)
            return snapshot
        if space_id is not None:
            check_in_service(snapshot, space_id, fragments)
        check(snapshot)
        dropped = _drop(snapshot.dataset, column, _locate(snapshot, column, values))
        committed = _commit(snapshot.dataset, dropped, fragments, tried)
        return Snapshot(snapshot.table, committed)

    def newest() -> Snapshot:
        return table.newest() if isinstance(table, Snapshot) else table.open()

    target, seen = (table.table, table.version) if isinstance(table, Snapshot) else (table, None)
    check_sizes(target, map(FragmentMetadata.from_json, fragments))
    with target.faults("committing to"):
        committed = tried_again(f"commit to {target.uri}", lambda _attempt: attempt_once(newest()))
    if unique is None or (seen is not None and committed.version == seen + 1):
        return committed
    return withdraw_second_copies(committed, unique, fragments)


@dataclass(frozen=True, slots=True)
class Claim:
    """A file version that a run is about to commit, and the versions it was planned to replace."""

    file_key: str
    uris: tuple[str, ...]
    """The file's URI, and the URI that it moved from."""
    replaces: frozenset[str]
    """Keys of the versions that the table held under these URIs when the run was planned."""
    gives_rows: bool


def check_claims(claims: Sequence[Claim], snapshot: Snapshot) -> None:
    """Raise ``LakeError`` when another run changed one of the files since this run was planned.

    The table may hold the versions planned with, or the claim's own.
    """
    uris = {uri for claim in claims for uri in claim.uris}
    if not uris:
        return
    keys_by_uri = _keys_by_uri(snapshot, uris)
    for claim in claims:
        keys = {key for uri in claim.uris for key in keys_by_uri.get(uri, ())}
        others = keys - {claim.file_key}
        planned = claim.replaces - {claim.file_key}
        is_removed = claim.gives_rows and claim.file_key not in keys and others != planned
        if is_removed or not others <= planned:
            raise LakeError(
                f"another run changed {claim.uris[0]} in table {snapshot.table.name!r} in "
                f"{snapshot.table.lake.uri} after this one was planned (versions {_shown(planned)} "
                f"then, {_shown(keys)} now); it stops here: run the same command again"
            )


def _shown(file_keys: Collection[str]) -> str:
    return ", ".join(key[:SHOWN_DIGITS] for key in sorted(file_keys)) or "none"


def _keys_by_uri(snapshot: Snapshot, uris: Collection[str]) -> dict[str, set[str]]:
    """File keys of the rows of files, by their URIs."""
    keys_by_uri: dict[str, set[str]] = {}
    names = ["source_uri", "file_key"]
    for batch in scan_values(snapshot, "source_uri", uris, names):
        pairs = pa.Table.from_batches([batch]).group_by(names).aggregate([])
        for pair in pairs.to_pylist():
            keys_by_uri.setdefault(pair["source_uri"], set()).add(pair["file_key"])
    return keys_by_uri


def check_in_service(snapshot: Snapshot, space_id: str, fragments: Sequence[str] = ()) -> None:
    """Raise ``Switched`` when another space than ``space_id`` is in service.

    Also when uncommitted ``fragments`` were written while another space was.
    """
    in_service, space = snapshot.space()
    if in_service != space_id or not _serves(snapshot.dataset, fragments):
        raise Switched(
            f"the space in service of table {snapshot.table.name!r} in {snapshot.table.lake.uri} "
            f"was switched while these rows were made in space {space_id[:SHOWN_DIGITS]}; it is "
            f"{in_service[:SHOWN_DIGITS]} ({space.model}) now. They were not committed, what was "
            "committed before is kept: run the same command again; a recipe without "
            "`release: {follow: true}` has to name that model first"
        )


def _serves(dataset: lance.LanceDataset, fragments: Sequence[str]) -> bool:
    """Whether the vectors of uncommitted fragments are of the column in service.

    A column keeps its field id when its name goes to another column.
    """
    if schema.VECTOR not in dataset.schema.names:
        return True
    field_id = dataset.lance_schema.field(schema.VECTOR).id()
    return all(
        any(field_id in file.fields for file in FragmentMetadata.from_json(fragment).files)
        for fragment in fragments
    )


def _has_committed(dataset: lance.LanceDataset, tried: Mapping[str, int]) -> bool:
    """Whether one of these transactions is among those since the first was tried.

    Fragments would not tell: maintenance may have merged them already.
    """
    since = range(min(tried.values()) + 1, int(dataset.version) + 1)
    return any(_transaction_id(dataset, version) in tried for version in since)


def _transaction_id(dataset: lance.LanceDataset, version: int) -> str | None:
    """The id of the transaction that made a version; None for compaction's."""
    try:
        transaction = dataset.read_transaction(version)
    except TypeError:  # pylance cannot show a compaction that rewrote indexes
        return None
    return None if transaction is None else str(transaction.uuid)


def withdraw_second_copies(first: Snapshot, column: str, fragments: Sequence[str]) -> Snapshot:
    """Delete our rows whose ``column`` has a value that another run committed before us.

    Two runs over the same files may look at the same version, and Lance lets both append. Fragment
    ids grow from commit to commit, so both runs agree on who was second, and that run withdraws.
    ``column``: a commit replaces all older rows with the same value of it. Returns a snapshot
    without second copies. ``first`` must be a version that has ``fragments``.
    """

    def attempt_once(snapshot: Snapshot) -> Snapshot:
        # 1. Our fragments' ids; none are left if maintenance merged them already.
        our_ids = _ids_of(snapshot.dataset, fragments)
        if not our_ids:
            return snapshot
        # 2. Every fragment that has one of our values, with those values.
        our_values = _values_in(snapshot, column, our_ids)
        values_by_fragment = _locate(snapshot, column, our_values)
        # 3. Values that stand in a fragment with a lower id than ours were there first.
        were_first = {
            value
            for fragment_id, values in values_by_fragment.items()
            if fragment_id < min(our_ids)
            for value in values
        }
        # 4. Delete our rows of those values, and theirs stay.
        second_copies = {
            fragment_id: values
            for fragment_id in our_ids
            if (values := values_by_fragment[fragment_id] & were_first)
        }
        dropped = _drop(snapshot.dataset, column, second_copies)
        return Snapshot(snapshot.table, _commit(snapshot.dataset, dropped, (), {}))

    if not fragments:
        return first
    return tried_again(
        f"commit to {first.table.uri}",
        lambda attempt: attempt_once(first.at(attempt)),
    )


def withdraw(table: Table, fragments: Sequence[str]) -> None:
    """Take our committed fragments out of the table again."""

    def attempt_once(dataset: lance.LanceDataset) -> None:
        _commit(dataset, _Dropped(_ids_of(dataset, fragments), []), (), {})

    if fragments:
        tried_again(f"commit to {table.uri}", lambda _attempt: attempt_once(table.dataset()))


def _commit(
    dataset: lance.LanceDataset,
    dropped: _Dropped,
    fragments: Sequence[str],
    tried: dict[str, int],
) -> lance.LanceDataset:
    """Commit once; the version with the change.

    The transaction's id is in ``tried`` before anything can go wrong with it.
    """
    added = [FragmentMetadata.from_json(fragment) for fragment in fragments]
    if not (added or dropped.removed or dropped.updated):
        return dataset
    operation = (
        lance.LanceOperation.Update(
            removed_fragment_ids=dropped.removed,
            updated_fragments=dropped.updated,
            new_fragments=added,
        )
        if dropped.removed or dropped.updated
        else lance.LanceOperation.Append(added)
    )
    transaction = lance.Transaction(int(dataset.version), operation)
    tried[transaction.uuid] = transaction.read_version
    flush_fragments(dataset.uri, dropped.updated)
    committed = lance.LanceDataset.commit(dataset, transaction)
    flush_version(committed)
    return committed


@dataclass(frozen=True, slots=True)
class _Dropped:
    removed: list[int]
    """Ids of fragments with no row left."""
    updated: list[FragmentMetadata]
    """Fragments with a new deletion file."""


def _drop(
    dataset: lance.LanceDataset, column: str, values_by_fragment: Mapping[int, Collection[str]]
) -> _Dropped:
    """Mark rows deleted in each fragment, by their values of ``column``; commits nothing."""
    removed: list[int] = []
    updated: list[FragmentMetadata] = []
    for fragment_id, values in sorted(values_by_fragment.items()):
        remaining = dataset.get_fragment(fragment_id).delete(is_in(column, values))
        if remaining is None:
            removed.append(fragment_id)
        else:
            updated.append(remaining)
    return _Dropped(removed, updated)


def _locate(snapshot: Snapshot, column: str, values: Collection[str]) -> dict[int, set[str]]:
    """Which of ``values`` of a column each fragment has, by the fragment's id."""
    values_by_fragment: dict[int, set[str]] = {}
    for batch in scan_values(snapshot, column, values, [column], row_address=True):
        rows = zip(
            batch.column(column).to_pylist(), batch.column("_rowaddr").to_pylist(), strict=True
        )
        for value, address in rows:
            values_by_fragment.setdefault(address >> 32, set()).add(value)  # high half: fragment id
    return values_by_fragment


def _ids_of(dataset: lance.LanceDataset, fragments: Sequence[str]) -> list[int]:
    """The ids that fragments got in the table, told by their data files; absent ones have none."""
    files = [file for text in fragments for file in FragmentMetadata.from_json(text).files]
    paths, ids = {file.path for file in files}, list[int]()
    # New fragments stand at the end, and reading the metadata of all takes too long.
    for fragment in reversed(dataset.get_fragments()):
        if len(ids) == len(fragments):
            break
        if any(data_file.path in paths for data_file in fragment.metadata.files):
            ids.append(fragment.fragment_id)
    return ids


def _values_in(snapshot: Snapshot, column: str, fragment_ids: Sequence[int]) -> set[str]:
    """Values of a column in all rows of fragments."""
    fragments = [snapshot.dataset.get_fragment(fragment_id) for fragment_id in fragment_ids]
    batches = scan(snapshot, [column], fragments=fragments)
    return {value for batch in batches for value in batch.column(column).unique().to_pylist()}
