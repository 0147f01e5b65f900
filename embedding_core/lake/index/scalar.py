"""What the indexes of a table cover, and the scalar and full-text ones that find rows.

Each run covers its new rows by a small part of their own; many parts are merged into one. The
vector index has a module of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import lance

from embedding_core.lake import schema
from embedding_core.lake.damage import indexes_of
from embedding_core.lake.faults import store_faults
from embedding_core.lake.table import Table

MOST_PARTS = 16
"""Parts of an index, each one more place to look, before a run merges them."""
TEXT_HASH_INDEX = "text_hash_idx"
SCALAR_INDEXES = {"file_key": "BITMAP", "source_uri": "BITMAP", "chunk_id": "BTREE"}


@dataclass(frozen=True, slots=True)
class Coverage:
    """What one index of the table covers."""

    kind: str
    columns: tuple[str, ...]
    parts: int
    """Pieces it is made of; each run adds one."""
    uncovered: tuple[int, ...]
    """Ids of fragments it has not seen."""
    uncovered_rows: int


def coverage(dataset: lance.LanceDataset) -> dict[str, Coverage]:
    """Every index of the table by its name.

    Counted over the fragments no part of the index has seen: the statistics of a vector index
    read all its centroids, and its row count includes deleted rows.
    """
    rows = {one.fragment_id: one.count_rows() for one in dataset.get_fragments()}
    found = {}
    for index in indexes_of(dataset):
        seen = {number for segment in index.segments for number in segment.fragment_ids}
        unseen = tuple(number for number in rows if number not in seen)
        found[index.name] = Coverage(
            kind=index.index_type,
            columns=tuple(index.field_names),
            parts=len(index.segments),
            uncovered=unseen,
            uncovered_rows=sum(rows[number] for number in unseen),
        )
    return found


def unindexed_rows(dataset: lance.LanceDataset) -> dict[str, int]:
    """Rows each index of the table does not cover yet, by the index's name."""
    return {name: one.uncovered_rows for name, one in coverage(dataset).items()}


def extend(table: Table, indexes: Mapping[str, Coverage], merge: bool = False) -> None:
    """Let indexes cover the new rows, by a part of their own, all in one commit; one of many parts,
    and with ``merge`` any, becomes one part that covers everything."""
    whole = {
        name: one.parts
        for name, one in indexes.items()
        if one.parts >= MOST_PARTS or (merge and (one.parts > 1 or one.uncovered))
    }
    short = [name for name, one in indexes.items() if one.uncovered and name not in whole]
    if short:
        table.dataset().optimize.optimize_indices(index_names=short, num_indices_to_merge=0)
    for name, parts in whole.items():
        table.dataset().optimize.optimize_indices(index_names=[name], num_indices_to_merge=parts)


def refresh_scalar_indexes(
    table: Table, full_text: bool = False, text_hash: bool = False, merge: bool = False
) -> None:
    """Make the scalar indexes and those on ``text`` (full-text) and ``text_hash`` if they are asked
    for, or extend them.

    One of the latter that is no longer asked for is dropped. ``merge``: see ``extend``.
    """
    wanted = {f"{column}_idx": (column, kind) for column, kind in SCALAR_INDEXES.items()}
    if full_text:
        wanted[schema.FULL_TEXT_INDEX] = ("text", "INVERTED")
    if text_hash:
        wanted[TEXT_HASH_INDEX] = ("text_hash", "BTREE")
    with store_faults(f"indexing {table.uri}"):
        known = coverage(table.dataset())
        for name in {schema.FULL_TEXT_INDEX, TEXT_HASH_INDEX} & known.keys() - wanted.keys():
            table.dataset().drop_index(name)
        for name in wanted.keys() - known.keys():
            column, kind = wanted[name]
            table.dataset().create_scalar_index(column, kind, name=name)
        extend(table, {name: known[name] for name in wanted if name in known}, merge)
