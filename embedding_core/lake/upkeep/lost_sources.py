"""Whose rows stood in data files that cannot be read any more: told from what is left.

Another data file of the fragment may hold ``source_uri``. The index on that column knows the rows
of each file without a look at them. And the ledger says how many rows each file has: what readable
fragments lack of them stood in the others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import lance

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
    """``damages`` in which each lost data file of a table says how many rows stood in it, and of
    which files of the source, where that can be told. ``entries``: the ledger, by file key."""
    lost = {
        one.fragment_id
        for one in damages
        if one.table == table.name and one.kind == DATA and one.fragment_id is not None
    }
    if not lost:
        return list(damages)
    dataset = table.dataset()
    fragments = {one.fragment_id: one for one in dataset.get_fragments()}
    short = _short(dataset, [one for key, one in fragments.items() if key not in lost], entries)
    n_lost = sum(fragments[one].count_rows() for one in lost)
    sources = {one: _sources(dataset, fragments[one], short, n_lost) for one in lost}
    return [
        _named(one, fragments[one.fragment_id].count_rows(), sources[one.fragment_id])
        if one.fragment_id in lost and one.table == table.name and one.kind == DATA
        else one
        for one in damages
    ]


def _named(damage: Damage, n_rows: int, sources: Sequence[str]) -> Damage:
    named = tuple(sources[:SOURCES_NAMED])
    return replace(damage, source_uris=named, n_sources=len(sources), n_rows=n_rows)


def _short(
    dataset: lance.LanceDataset,
    readable: Sequence[lance.LanceFragment],
    entries: Mapping[str, LedgerEntry],
) -> dict[str, int]:
    """Rows by URI of the files of which readable fragments have not all rows, by the ledger.

    Its lines of versions that were replaced or removed are among them: nothing says that they are.
    """
    there: Counter[str] = Counter()
    if readable:
        for batch in _read(dataset, readable, "file_key"):
            there.update(batch)
    whole = {one.counts.source_uri for key, one in entries.items() if there[key] == one.counts.rows}
    return {
        one.counts.source_uri: one.counts.rows - there[key]
        for key, one in entries.items()
        if one.counts.rows > there[key] and one.counts.source_uri not in whole
    }


def _sources(
    dataset: lance.LanceDataset,
    fragment: lance.LanceFragment,
    short: Mapping[str, int],
    n_lost: int,
) -> list[str]:
    """The files of the source that had rows in a fragment, sorted; none where nothing tells.
    ``n_lost``: rows of all fragments that cannot be read."""
    for tell in (_by_the_column, _by_the_index):
        try:
            return tell(dataset, fragment, sorted(short))
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
    """Those of ``uris`` that the index has rows of in the fragment: halved until they are found."""
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
