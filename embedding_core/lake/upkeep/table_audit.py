"""Check a whole table against itself, for what a disk, a lost write or a flipped bit did to it.

Lance keeps no checksums, but the columns check each other: a ``text_hash`` is the digest of the
text, a ``chunk_id`` of four columns, a ``file_key`` of the ledger's line of the file, a vector has
unit length. A line of the ledger and of the rejects has a checksum. ``verify`` looks at the rows of
one run; this looks at all rows, and at files and indexes. Knows no model: the caller passes
``encode``.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import lance

from embedding_core.identity import SHOWN_DIGITS, file_key
from embedding_core.lake.damage import all_wrong_sizes, indexes_of, wrong_deletions
from embedding_core.lake.disk.checksums import ledger_checksums, reject_checksums
from embedding_core.lake.disk.flushing import flush_version
from embedding_core.lake.faults import plain, store_faults
from embedding_core.lake.filters import KEYS_PER_SCAN, is_in
from embedding_core.lake.index.broken import LARGEST_READ_BYTES, broken_indexes, drop_index
from embedding_core.lake.ledger import (
    LedgerEntry,
    badly_listed,
    drop_entries,
    entries,
    ledger_table,
    open_ledger,
    rejects_table,
)
from embedding_core.lake.readers.feedback import feedback_table
from embedding_core.lake.rows.commit import replace_rows
from embedding_core.lake.scans import file_versions, key_groups, raw_scan
from embedding_core.lake.snapshot import Snapshot
from embedding_core.lake.spaces.switching import releases
from embedding_core.lake.table import Table
from embedding_core.lake.upkeep.line_audit import Checksums, changed_lines
from embedding_core.lake.upkeep.lost_sources import with_sources
from embedding_core.lake.upkeep.row_audit import (
    COUNT,
    DATA,
    FEEDBACK,
    INDEX,
    KEY_DIGITS,
    ROW,
    Damage,
    Encode,
    Seen,
    file_of,
    fragment_damages,
    is_of_the_data,
    reads,
)
from embedding_core.plurals import counted
from embedding_core.records import FileVersion, SourceFile

CHECKED_INDEXES = ("file_key", "source_uri", "chunk_id")


@dataclass(frozen=True, slots=True)
class Audit:
    """What was checked, and everything that is damaged."""

    table: str
    """URI of the table."""
    version: int
    """Version of the table that was looked at."""
    rows: int
    deep: bool
    """Whether every row was read."""
    encoded_again: int
    """Rows whose vector was computed again and compared."""
    damages: tuple[Damage, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing is damaged."""
        return not self.damages


def audit(
    snapshot: Snapshot, deep: bool = False, encode: Encode | None = None, sample_rows: int = 0
) -> Audit:
    """Look for damage in a table, its ledger, its rejects and its feedback; changes nothing.

    A quick audit compares sizes of files with the metadata, rows of each file with the ledger, the
    ledger's lines with their checksums, and opens the indexes. A ``deep`` one also reads every row
    and every reject, compares the columns of rows with each other, rejects with their checksums,
    and about ``sample_rows`` vectors with what ``encode`` makes of their texts; it reads the
    feedback, with which nothing can be compared. Raises
    ``LakeError`` for a damaged manifest: nothing else can be looked at then.
    """
    table, dataset, n_rows = snapshot.table, snapshot.dataset, snapshot.n_rows
    snapshot.space()  # the descriptions in the metadata are read as every command reads them
    releases(snapshot)
    cutter = snapshot.cutter()
    tables = [each for each in (table, ledger_table(table), rejects_table(table)) if each.exists()]
    damages = [damage for checked in tables for damage in _file_damages(checked)]
    lost = {damage.fragment_id for damage in damages if damage.table == table.name}
    ledger_entries, wrong_lines = _ledger(table, damages)
    damages += wrong_lines
    sample_every = math.ceil(n_rows / sample_rows) if sample_rows and encode else 0
    versions, unread = ([], []) if lost else _versions(snapshot)
    doubted = {key for damage in wrong_lines for key in damage.file_keys} | _only_keys(versions)
    seen = Seen(ledger_entries, doubted, cutter.max_tokens if cutter else None, sample_every)
    for checked in tables:
        damages += _index_damages(checked, deep)
    if deep:
        for fragment in dataset.get_fragments():
            if fragment.fragment_id not in lost:
                damages += fragment_damages(table, dataset, fragment, encode, seen)
        damages += _lost_to_indexes(table, dataset, seen, damages)
        damages += _damages_beside(table, damages)
    else:
        seen.keys.update({(each.uri, each.file_key): each.n_rows for each in versions})
        damages += unread
    damages = with_sources(table, ledger_entries, damages)
    all_counted = not any(damage.kind == DATA and damage.table == table.name for damage in damages)
    damages += _count_damages(table, seen, all_counted)
    damages += _feedback_damages(table, deep)
    return Audit(table.uri, snapshot.version, n_rows, deep, seen.encoded_again, tuple(damages))


def _file_damages(table: Table) -> Iterator[Damage]:
    spec = table.lake.storage
    fragments = [fragment.metadata for fragment in table.dataset().get_fragments()]
    for wrong in all_wrong_sizes(table.uri, spec, fragments):
        yield Damage(DATA, table.name, str(wrong), (wrong.path,), fragment_id=wrong.fragment_id)
    for fragment in fragments:
        if (why := wrong_deletions(table.uri, spec, fragment)) is not None:
            files = tuple(str(file.path) for file in fragment.files)
            yield Damage(DATA, table.name, why, files, fragment_id=fragment.id)


def _index_damages(table: Table, deep: bool) -> Iterator[Damage]:
    for name, why in broken_indexes(table.open(), None if deep else LARGEST_READ_BYTES).items():
        yield Damage(INDEX, table.name, f"index {name}: {why}", index=name)


def _ledger(table: Table, damages: Sequence[Damage]) -> tuple[dict[str, LedgerEntry], list[Damage]]:
    """The ledger's good lines by file key, and a damage for each other line; none of either where
    one of its files is damaged."""
    ledger = ledger_table(table)
    if not ledger.exists() or any(damage.table == ledger.name for damage in damages):
        return {}, []
    try:
        by_key = entries(open_ledger(table))
        changed = _changed(ledger)
    except BaseException as error:
        if not is_of_the_data(error):
            raise
        return {}, []  # its files are looked at, and named, apart
    wrong_lines = []
    for key, entry in list(by_key.items()):
        counts = entry.counts
        file = SourceFile(counts.source_uri, entry.fingerprint, 0)
        expected = file_key(file, entry.rows_id, entry.choice) if entry.fingerprint else key
        why = "its values are not what was written" if key in changed else ""
        why = why if counts.balances else "its chunks do not add up"
        why = why if key == expected else "its file_key is not the digest of its other columns"
        if why:
            del by_key[key]
            message = f"the line of {counts.source_uri}: {why}"
            uris, keys, files = (counts.source_uri,), frozenset([key]), changed.get(key, ())
            line = Damage(
                ROW, ledger.name, message, files, uris, n_rows=1, file_keys=keys, n_sources=1
            )
            wrong_lines.append(line)
    return by_key, wrong_lines


def _changed(ledger: Table) -> dict[str, tuple[str, ...]]:
    """File keys of the ledger's lines that are not what was written, and the files they are in."""
    dataset = ledger.dataset()
    return {
        key: file_of(dataset, fragment, "file_key")
        for fragment in dataset.get_fragments()
        for key in changed_lines(dataset, fragment, ledger_checksums, "file_key")
    }


def _versions(snapshot: Snapshot) -> tuple[list[FileVersion], list[Damage]]:
    """The file versions that have rows; a failure to read them is a damage."""
    try:
        return list(file_versions(snapshot)), []
    except BaseException as error:
        if not is_of_the_data(error):
            raise
        message = f"rows cannot be read: {plain(error)}; a deep audit names them"
        return [], [Damage(DATA, snapshot.table.name, message)]


def _only_keys(versions: Sequence[FileVersion]) -> set[str]:
    """File keys of files that have rows of one version: without a line they are whole all the same.
    A run was cut off before it wrote the line, or repair took it out, and the next run writes it.
    """
    n_versions = Counter(version.uri for version in versions)
    return {version.file_key for version in versions if n_versions[version.uri] == 1}


def _count_damages(table: Table, seen: Seen, all_counted: bool) -> Iterator[Damage]:
    """Rows of each file version against the ledger."""
    keys_by_uri: dict[str, list[str]] = defaultdict(list)
    for uri, key in seen.keys:
        keys_by_uri[uri].append(key)
    for uri, keys in keys_by_uri.items():
        whys = [f"rows of {counted(len(keys), 'version')}"] if len(keys) > 1 else []
        for key in keys:
            if why := seen.unlike_the_ledger(uri, key):
                whys.append(f"{key[:SHOWN_DIGITS]}: {why}")
            elif all_counted and key in seen.entries:
                whys += _uncounted(seen, seen.entries[key], seen.keys[uri, key])
        if whys:
            yield Damage(
                COUNT,
                table.name,
                f"{uri}: {'; '.join(whys)}",
                (),
                (uri,),
                file_keys=frozenset(keys),
                n_sources=1,
            )


def _uncounted(seen: Seen, entry: LedgerEntry, n_rows: int) -> Iterator[str]:
    counts = entry.counts
    if counts.rows != n_rows:
        yield f"{counted(n_rows, 'row')} in the table, {counts.rows} in the ledger"
    elif seen.tokens and not counts.failed:
        key = counts.file_key
        if counts.tokens not in (seen.tokens[key], seen.cut_tokens[key]):
            yield f"n_tokens add up to {seen.tokens[key]}, in the ledger to {counts.tokens}"


def _lost_to_indexes(
    table: Table, dataset: lance.LanceDataset, seen: Seen, damages: Sequence[Damage]
) -> Iterator[Damage]:
    """Indexes that give other rows than a scan: a flipped bit can remove values from an index."""
    if any(damage.table == table.name and damage.kind in (DATA, INDEX) for damage in damages):
        return  # the damage is named already, and filters would fail
    by_name = {"file_key": Counter[str](), "source_uri": Counter[str]()}
    for (uri, key), n_rows in seen.keys.items():
        by_name["file_key"][key] += n_rows
        by_name["source_uri"][uri] += n_rows
    names = {index.name for index in indexes_of(dataset)}
    for column in CHECKED_INDEXES:
        name = f"{column}_idx"
        if name not in names:
            continue
        try:
            lost = _differs_by_index(dataset, column, by_name.get(column))
        except BaseException as error:
            if not is_of_the_data(error):
                raise
            lost = f"it cannot be used ({plain(error)})"
        if lost:
            yield Damage(INDEX, table.name, f"index {name}: {lost}", index=name)


def _differs_by_index(
    dataset: lance.LanceDataset, column: str, expected: Counter[str] | None
) -> str | None:
    """How an index differs from a scan. ``expected``: rows by value; None: each value once."""
    if expected is None:
        for batch in raw_scan(dataset, [column], batch_rows=KEYS_PER_SCAN):
            values = batch.column(column).to_pylist()
            n_rows = dataset.count_rows(is_in(column, values))
            if n_rows != len(values):
                return f"it finds {n_rows} of {counted(len(values), 'row')}"
        return None
    for values in key_groups(expected):
        rows: Counter[str] = Counter()
        for batch in raw_scan(dataset, [column], is_in(column, values)):
            rows.update(batch.column(column).to_pylist())
        for value in values:
            if rows[value] != expected[value]:
                return f"it finds {rows[value]} of {counted(expected[value], 'row')} of {value}"
    return None


def _damages_beside(table: Table, damages: Sequence[Damage]) -> Iterator[Damage]:
    """What of the rejects and the ledger cannot be read, or can and is not what was written."""
    beside = ((rejects_table(table), reject_checksums), (ledger_table(table), ledger_checksums))
    for checked, checksums_of in beside:
        if checked.exists() and not any(damage.table == checked.name for damage in damages):
            dataset = checked.dataset()
            for fragment in dataset.get_fragments():
                yield from _line_damages(checked, dataset, fragment, checksums_of)


def _feedback_damages(table: Table, deep: bool) -> Iterator[Damage]:
    """What of the feedback is lost, and in which file."""
    feedback = feedback_table(table)
    if not feedback.exists():
        return
    damages = list(_file_damages(feedback))
    if deep and not damages:
        dataset = feedback.dataset()
        damages = [
            damage
            for fragment in dataset.get_fragments()
            for damage in _unreadable(feedback, dataset, fragment)
        ]
    yield from (replace(damage, kind=FEEDBACK) for damage in damages)


def _unreadable(
    table: Table, dataset: lance.LanceDataset, fragment: lance.LanceFragment
) -> Iterator[Damage]:
    """The first column of a fragment that cannot be read."""
    unreadable = (name for name in dataset.schema.names if not reads(dataset, fragment, name))
    if (column := next(unreadable, None)) is not None:
        message, files = f"{column} cannot be read", file_of(dataset, fragment, column)
        yield Damage(DATA, table.name, message, files, fragment_id=fragment.fragment_id)


def _line_damages(
    table: Table,
    dataset: lance.LanceDataset,
    fragment: lance.LanceFragment,
    checksums_of: Checksums,
) -> Iterator[Damage]:
    if unreadable := tuple(_unreadable(table, dataset, fragment)):
        yield from unreadable
        return
    files = tuple(str(file.path) for file in fragment.data_files())
    try:
        changed = changed_lines(dataset, fragment, checksums_of, "source_uri")
    except BaseException as error:
        if not is_of_the_data(error):
            raise
        message = f"its lines cannot be read: {plain(error)}"
        yield Damage(DATA, table.name, message, files, fragment_id=fragment.fragment_id)
        return
    for uri, n_lines in changed.items():
        message = f"{counted(n_lines, 'line')} of {uri}: the values are not what was written"
        yield Damage(ROW, table.name, message, files, (uri,), n_rows=n_lines, n_sources=1)


def take_out(table: Table, damages: Sequence[Damage]) -> None:
    """Remove damaged rows from a table, its ledger and its rejects; a run makes them again.

    Drops indexes that cannot be used, fragments that cannot be read, and in other fragments the
    rows of each damaged file. Rows of the table whose file lost its rejects stay; its line in the
    ledger goes, so that a run reads the file. Call it under the table's lock.
    """
    rejects = rejects_table(table)
    for damaged in (table, ledger_table(table), rejects):
        own_damages = [damage for damage in damages if damage.table == damaged.name]
        for damage in own_damages:
            if damage.index is not None:
                drop_index(damaged.open(), damage.index)
        _drop_fragments(damaged, {key for damage in own_damages for key in _lost(damage)})
        keys = {key for damage in own_damages for key in damage.file_keys}
        if keys:
            drop_index(damaged.open(), "file_key_idx")  # the data decides, not an index
            replace_rows(damaged, "file_key", keys, ())
    _take_out_rejects(table, [damage for damage in damages if damage.table == rejects.name])


def _take_out_rejects(table: Table, damages: Sequence[Damage]) -> None:
    """Drop all rejects of files that have damaged ones, and the lines in the ledger of every file
    whose rejects are not all listed."""
    if all(damage.kind == INDEX for damage in damages):
        return
    uris = {uri for damage in damages if damage.kind == ROW for uri in damage.source_uris}
    replace_rows(rejects_table(table), "source_uri", uris, ())
    drop_entries(table, badly_listed(table, uris))


def _lost(damage: Damage) -> Iterator[int]:
    """The id of a fragment of which nothing can be kept."""
    unknown = any(len(key) != KEY_DIGITS or not key.isalnum() for key in damage.file_keys)
    if damage.fragment_id is not None and (damage.kind == DATA or unknown):
        yield damage.fragment_id


def _drop_fragments(table: Table, fragment_ids: Collection[int]) -> None:
    if not fragment_ids:
        return
    dataset = table.dataset()
    existing = {fragment.fragment_id for fragment in dataset.get_fragments()}
    operation = lance.LanceOperation.Update(
        removed_fragment_ids=sorted(existing & set(fragment_ids)),
        updated_fragments=[],
        new_fragments=[],
    )
    with store_faults(f"taking damaged rows out of {table.uri}"):
        transaction = lance.Transaction(int(dataset.version), operation)
        flush_version(lance.LanceDataset.commit(dataset, transaction))
