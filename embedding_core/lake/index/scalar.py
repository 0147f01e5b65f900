"""What the indexes of a table cover, and the scalar and full-text ones that find rows.

Each run covers its new rows by one small part; many parts are merged into one. For the vector index
see ``lake.index.vector``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import lance

from embedding_core.lake import schema
from embedding_core.lake.damage import indexes_of
from embedding_core.lake.faults import store_faults
from embedding_core.lake.snapshot import Snapshot, opened
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

    Counted over the fragments that no part of the index has seen. The statistics of a vector index
    would read all its centroids, and its row count includes deleted rows.
    """
    rows = {fragment.fragment_id: fragment.count_rows() for fragment in dataset.get_fragments()}
    covered = {}
    for index in indexes_of(dataset):
        seen = {number for segment in index.segments for number in segment.fragment_ids}
        unseen = tuple(number for number in rows if number not in seen)
        covered[index.name] = Coverage(
            kind=index.index_type,
            columns=tuple(index.field_names),
            parts=len(index.segments),
            uncovered=unseen,
            uncovered_rows=sum(rows[number] for number in unseen),
        )
    return covered


def unindexed_rows(dataset: lance.LanceDataset) -> dict[str, int]:
    """Rows that each index of the table does not cover yet, by the index's name."""
    return {name: index.uncovered_rows for name, index in coverage(dataset).items()}


def extend(
    dataset: lance.LanceDataset, indexes: Mapping[str, Coverage], merge: bool = False
) -> None:
    """Let indexes cover the new rows, by one new part each, all in one commit.

    An index of many parts becomes one part that covers everything. With ``merge`` any index does.
    """
    merged = {name: index.parts for name, index in indexes.items() if _becomes_one(index, merge)}
    short = [name for name, index in indexes.items() if index.uncovered and name not in merged]
    if short:
        dataset.optimize.optimize_indices(index_names=short, num_indices_to_merge=0)
    for name, parts in merged.items():
        dataset.optimize.optimize_indices(index_names=[name], num_indices_to_merge=parts)


def is_to_extend(index: Coverage, merge: bool) -> bool:
    """Whether ``extend`` would change an index."""
    return bool(index.uncovered) or _becomes_one(index, merge)


def _becomes_one(index: Coverage, merge: bool) -> bool:
    return index.parts >= MOST_PARTS or (merge and (index.parts > 1 or bool(index.uncovered)))


def refresh_scalar_indexes(
    table: Table | Snapshot, full_text: bool = False, text_hash: bool = False, merge: bool = False
) -> None:
    """Make or extend the scalar indexes, and those on ``text`` and ``text_hash`` if asked for.

    An index on ``text`` (full-text) or ``text_hash`` that is no longer asked for is dropped.
    ``merge``: see ``extend``. A snapshot moves to the version with the indexes.
    """
    snapshot = opened(table)
    dataset = snapshot.dataset
    kinds = {f"{column}_idx": (column, kind) for column, kind in SCALAR_INDEXES.items()}
    if full_text:
        kinds[schema.FULL_TEXT_INDEX] = ("text", "INVERTED")
    if text_hash:
        kinds[TEXT_HASH_INDEX] = ("text_hash", "BTREE")
    with store_faults(f"indexing {snapshot.table.uri}"):
        indexes = coverage(dataset)
        for name in {schema.FULL_TEXT_INDEX, TEXT_HASH_INDEX} & indexes.keys() - kinds.keys():
            dataset.drop_index(name)
        for name in kinds.keys() - indexes.keys():
            column, kind = kinds[name]
            dataset.create_scalar_index(column, kind, name=name)
        extend(dataset, {name: indexes[name] for name in kinds if name in indexes}, merge)
