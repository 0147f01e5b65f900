"""Find the source files whose rows were in data files that cannot be read any more.

There are three ways. Another data file of the fragment may hold ``source_uri``. The index on that
column knows the rows of each file without reading them. And the ledger says how many rows each file
has: rows that the readable fragments lack were in the lost ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import lance

from embedding_core.lake.damage import wrong_deletions
from embedding_core.lake.filters import is_in
from embedding_core.lake.ledger import LedgerEntry
from embedding_core.lake.scans import raw_scan
from embedding_core.lake.table import Table
from embedding_core.lake.upkeep.row_audit import (
    DATA,
    SOURCES_NAMED,
    Damage,
    is_of_the_data,
    strings,
)


def with_sources(
    table: Table, entries: Mapping[str, LedgerEntry], damages: Sequence[Damage]
) -> list[Damage]:
    """``damages`` in which lost data files of a table name the source files of their rows.

    Where that can be told; the number of rows is added too. ``entries``: the ledger, by file key.
    """
    lost = {
        damage.fragment_id
        for damage in damages
        if damage.table == table.name and damage.kind == DATA and damage.fragment_id is not None
    }
    if not lost:
        return list(damages)
    dataset = table.dataset()
    fragments = {fragment.fragment_id: fragment for fragment in dataset.get_fragments()}
    readable = [fragment for key, fragment in fragments.items() if key not in lost]
    short = _short(dataset, readable, entries)
    n_lost = sum(fragments[key].count_rows() for key in lost)
    # Lance may end the process over a list of deleted rows.
    spec, metadata = table.lake.storage, (fragments[key].metadata for key in lost)
    may_read = not any(wrong_deletions(table.uri, spec, fragment) for fragment in metadata)
    sources = {key: _sources(dataset, fragments[key], short, n_lost, may_read) for key in lost}
    return [
        _named(damage, fragments[damage.fragment_id].count_rows(), sources[damage.fragment_id])
        if damage.fragment_id in lost and damage.table == table.name and damage.kind == DATA
        else damage
        for damage in damages
    ]


def _named(damage: Damage, n_rows: int, sources: Sequence[str]) -> Damage:
    named = tuple(sources[:SOURCES_NAMED])
    return replace(damage, source_uris=named, n_sources=len(sources), n_rows=n_rows)


def _short(
    dataset: lance.LanceDataset,
    readable: Sequence[lance.LanceFragment],
    entries: Mapping[str, LedgerEntry],
) -> dict[str, int]:
    """Rows that readable fragments lack of each file by the ledger, by the file's URI.

    Includes the ledger's lines of versions that were replaced or removed: nothing marks them.
    """
    readable_rows: Counter[str] = Counter()
    if readable:
        for batch in _read(dataset, readable, "file_key"):
            readable_rows.update(batch)
    lacking = {key: entry.counts.rows - readable_rows[key] for key, entry in entries.items()}
    uris = {key: entry.counts.source_uri for key, entry in entries.items()}
    complete = {uris[key] for key, n_rows in lacking.items() if n_rows == 0}
    return {
        uris[key]: n_rows
        for key, n_rows in lacking.items()
        if n_rows > 0 and uris[key] not in complete
    }


def _sources(
    dataset: lance.LanceDataset,
    fragment: lance.LanceFragment,
    short: Mapping[str, int],
    n_lost: int,
    may_read: bool,
) -> list[str]:
    """The source files that had rows in a fragment, sorted; empty when they cannot be told.

    ``n_lost``: rows of all fragments that cannot be read; ``may_read``: whether it does no harm to
    try.
    """
    for sources_by in (_by_the_column, _by_the_index) if may_read else ():
        try:
            return sources_by(dataset, fragment, sorted(short))
        except BaseException as error:
            if not is_of_the_data(error):
                raise
    return sorted(short) if sum(short.values()) == n_lost == fragment.count_rows() else []


def _by_the_column(
    dataset: lance.LanceDataset, fragment: lance.LanceFragment, _uris: Sequence[str]
) -> list[str]:
    return sorted({uri for uris in _read(dataset, [fragment], "source_uri") for uri in uris})


def _by_the_index(
    dataset: lance.LanceDataset, fragment: lance.LanceFragment, uris: Sequence[str]
) -> list[str]:
    """The ``uris`` that have rows in the fragment by the index; bisects the list."""
    if not uris or not _n_rows(dataset, fragment, uris):
        return []
    if len(uris) == 1:
        return list(uris)
    middle = len(uris) // 2
    halves = (uris[:middle], uris[middle:])
    return [uri for half in halves for uri in _by_the_index(dataset, fragment, half)]


def _n_rows(dataset: lance.LanceDataset, fragment: lance.LanceFragment, uris: Sequence[str]) -> int:
    batches = raw_scan(
        dataset, [], is_in("source_uri", uris), fragments=[fragment], row_address=True
    )
    return sum(batch.num_rows for batch in batches)


def _read(
    dataset: lance.LanceDataset, fragments: Sequence[lance.LanceFragment], column: str
) -> Iterable[list[str]]:
    for batch in raw_scan(dataset, [column], fragments=fragments):
        yield strings(batch.column(column))
