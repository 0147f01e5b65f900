"""A whole table held against itself: what a disk, a lost write or a flipped bit did to it.

Lance keeps no checksums, but rows say much of each other: a ``text_hash`` is the digest of the
text, a ``chunk_id`` of four columns, a ``file_key`` of what the ledger says of the file, a vector
has unit length. ``verify`` looks at the rows of one run; this looks at all of them, and at files
and indexes. Knows no model: who has one gives ``encode``.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import lance

from embedding_core.identity import SHOWN_DIGITS, file_key
from embedding_core.lake.damage import all_wrong_sizes, indexes_of
from embedding_core.lake.faults import plain, store_faults
from embedding_core.lake.filters import KEYS_PER_SCAN, is_in
from embedding_core.lake.index.broken import LARGEST_READ_BYTES, broken_indexes, drop_index
from embedding_core.lake.ledger import LedgerEntry, entries, ledger_table, rejects_table
from embedding_core.lake.rows.commit import replace_rows
from embedding_core.lake.scans import key_groups, raw_scan
from embedding_core.lake.table import Table
from embedding_core.lake.upkeep.lost_sources import with_sources
from embedding_core.lake.upkeep.row_audit import (
    COUNT,
    DATA,
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
from embedding_core.records import SourceFile

CHECKED_INDEXES = ("file_key", "source_uri", "chunk_id")


@dataclass(frozen=True, slots=True)
class Audit:
    """What was looked at, and everything that is damaged."""

    table: str
    """URI of the table."""
    version: int
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
    table: Table, deep: bool = False, encode: Encode | None = None, sample_rows: int = 0
) -> Audit:
    """Look for damage in a table, its ledger and its rejects; changes nothing.

    Quickly: sizes of files against metadata, rows of each file against the ledger, indexes that
    open. ``deep``: every row too, each against what its columns say of each other, and about
    ``sample_rows`` of them against what ``encode`` makes of their texts.
    """
    dataset = table.dataset()
    n_rows = dataset.count_rows()
    known, damages = _ledger(table)
    cutter = table.cutter()
    sample_every = math.ceil(n_rows / sample_rows) if sample_rows and encode else 0
    seen = Seen(known, cutter.max_tokens if cutter else None, sample_every)
    for one in (table, ledger_table(table), rejects_table(table)):
        if one.exists():
            damages += [*_file_damages(one), *_index_damages(one, deep)]
    lost = {one.fragment_id for one in damages if one.kind == DATA and one.table == table.name}
    if deep:
        for fragment in dataset.get_fragments():
            if fragment.fragment_id not in lost:
                damages += fragment_damages(table, dataset, fragment, encode, seen)
        damages += _lost_to_indexes(table, dataset, seen, damages)
        damages += _unreadable_tables(table, damages)
    elif not lost:
        damages += _counted(table, seen)
    damages = with_sources(table, known, damages)
    all_counted = not any(one.kind == DATA and one.table == table.name for one in damages)
    damages += _count_damages(table, seen, all_counted)
    return Audit(table.uri, int(dataset.version), n_rows, deep, seen.encoded_again, tuple(damages))


def _file_damages(table: Table) -> Iterator[Damage]:
    metadata = (fragment.metadata for fragment in table.dataset().get_fragments())
    for wrong in all_wrong_sizes(table.uri, table.lake.storage, metadata):
        yield Damage(DATA, table.name, str(wrong), (wrong.path,), fragment_id=wrong.fragment_id)


def _index_damages(table: Table, deep: bool) -> Iterator[Damage]:
    for name, why in broken_indexes(table, None if deep else LARGEST_READ_BYTES).items():
        yield Damage(INDEX, table.name, f"index {name}: {why}", index=name)


def _ledger(table: Table) -> tuple[dict[str, LedgerEntry], list[Damage]]:
    """The ledger's good lines by file key, and a damage for each of the others."""
    ledger = ledger_table(table)
    try:
        known = entries(table)
    except BaseException as error:
        if not is_of_the_data(error):
            raise
        return {}, []  # its files are looked at, and named, apart
    damages = []
    for key, entry in list(known.items()):
        counts = entry.counts
        expected = file_key(SourceFile(counts.source_uri, entry.fingerprint, 0), entry.rows_id)
        why = "" if counts.balances else "its chunks do not add up"
        why = why if key == expected else "its file_key is not the digest of its other columns"
        if why:
            del known[key]
            said = f"the line of {counts.source_uri}: {why}"
            uris, keys = (counts.source_uri,), frozenset([key])
            line = Damage(ROW, ledger.name, said, (), uris, n_rows=1, file_keys=keys, n_sources=1)
            damages.append(line)
    return known, damages


def _counted(table: Table, seen: Seen) -> list[Damage]:
    """Count the rows of each file version; what keeps them from being read is a damage."""
    try:
        for version in table.file_versions():
            seen.keys[version.uri, version.file_key] += version.n_rows
    except BaseException as error:
        if not is_of_the_data(error):
            raise
        return [Damage(DATA, table.name, f"rows cannot be read: {plain(error)}; see --deep")]
    return []


def _count_damages(table: Table, seen: Seen, all_counted: bool) -> Iterator[Damage]:
    """Rows of each file version against the ledger."""
    keys_by_uri: dict[str, list[str]] = defaultdict(list)
    for uri, key in seen.keys:
        keys_by_uri[uri].append(key)
    for uri, keys in keys_by_uri.items():
        whys = [f"rows of {len(keys)} versions"] if len(keys) > 1 else []
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
        yield f"{n_rows} rows in the table, {counts.rows} in the ledger"
    elif seen.tokens and not counts.failed:
        key = counts.file_key
        if counts.tokens not in (seen.tokens[key], seen.cut_tokens[key]):
            yield f"n_tokens add up to {seen.tokens[key]}, in the ledger to {counts.tokens}"


def _lost_to_indexes(
    table: Table, dataset: lance.LanceDataset, seen: Seen, damages: Sequence[Damage]
) -> Iterator[Damage]:
    """Indexes that find other rows than a scan: a flipped bit can take values out of one."""
    if any(one.table == table.name and one.kind in (DATA, INDEX) for one in damages):
        return  # what is broken is named already, and filters would fail
    by_name = {"file_key": Counter[str](), "source_uri": Counter[str]()}
    for (uri, key), n_rows in seen.keys.items():
        by_name["file_key"][key] += n_rows
        by_name["source_uri"][uri] += n_rows
    names = {one.name for one in indexes_of(dataset)}
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
                return f"it finds {n_rows} of {len(values)} rows"
        return None
    for values in key_groups(expected):
        rows: Counter[str] = Counter()
        for batch in raw_scan(dataset, [column], is_in(column, values)):
            rows.update(batch.column(column).to_pylist())
        for value in values:
            if rows[value] != expected[value]:
                return f"it finds {rows[value]} of {expected[value]} rows of {value}"
    return None


def _unreadable_tables(table: Table, damages: Sequence[Damage]) -> Iterator[Damage]:
    """The rejects and the ledger, read as a whole."""
    for one in (rejects_table(table), ledger_table(table)):
        if not one.exists() or any(damage.table == one.name for damage in damages):
            continue
        dataset = one.dataset()
        for fragment in dataset.get_fragments():
            for column in dataset.schema.names:
                if not reads(dataset, fragment, column):
                    path = file_of(dataset, fragment, column)
                    yield Damage(
                        DATA, one.name, f"{column} cannot be read", path,
                        fragment_id=fragment.fragment_id,
                    )  # fmt: skip
                    break


def take_out(table: Table, damages: Sequence[Damage]) -> None:
    """Take what is damaged out of a table, its ledger and its rejects, for runs to make it again.

    Indexes that cannot be used are dropped. Fragments that cannot be read go as a whole, of others
    the rows of each damaged file. To be called under the table's lock.
    """
    for one in (table, ledger_table(table), rejects_table(table)):
        mine = [damage for damage in damages if damage.table == one.name]
        for damage in mine:
            if damage.index is not None:
                drop_index(one, damage.index)
        _drop_fragments(one, {fragment for damage in mine for fragment in _lost(damage)})
        keys = {key for damage in mine for key in damage.file_keys}
        if keys:
            drop_index(one, "file_key_idx")  # the data decides, not an index
            replace_rows(one, "file_key", keys, ())


def _lost(damage: Damage) -> Iterator[int]:
    """The fragment that nothing can be kept of."""
    unknown = any(len(key) != KEY_DIGITS or not key.isalnum() for key in damage.file_keys)
    if damage.fragment_id is not None and (damage.kind == DATA or unknown):
        yield damage.fragment_id


def _drop_fragments(table: Table, fragment_ids: Collection[int]) -> None:
    if not fragment_ids:
        return
    dataset = table.dataset()
    there = {fragment.fragment_id for fragment in dataset.get_fragments()}
    operation = lance.LanceOperation.Update(
        removed_fragment_ids=sorted(there & set(fragment_ids)),
        updated_fragments=[],
        new_fragments=[],
    )
    with store_faults(f"taking damaged rows out of {table.uri}"):
        lance.LanceDataset.commit(dataset, lance.Transaction(int(dataset.version), operation))
