"""Count what a table holds, from a few narrow columns; no text and no vector is read."""

from __future__ import annotations

from embedding_core.lake import ledger
from embedding_core.lake.scans import scan
from embedding_core.lake.snapshot import Snapshot
from embedding_core.lake.table import existing_table
from embedding_core.recipe import Recipe
from embedding_core.runs.inputs.tallies import Grouping, Groups, Statistics, digest_number

ROWS_PER_BATCH = 65_536
COLUMNS = ("source_uri", "chunk_index", "n_tokens", "text_hash")


def count_table(recipe: Recipe, by: str) -> Statistics:
    """The figures of the recipe's table. Raises ``LakeError`` without a table.

    Documents are counted by their first chunks, rejects by the rejects table. Memory: 8 bytes per
    row, and a URI per file.
    """
    return count_rows_of(existing_table(recipe).open(), recipe, by)


def count_rows_of(snapshot: Snapshot, recipe: Recipe, by: str) -> Statistics:
    """``count_table`` for a version of the table."""
    grouping = Grouping.of(by, recipe)
    if grouping.column is not None:
        snapshot.field(grouping.column)
    groups = Groups()
    uris = _count_rows(snapshot, grouping, groups)
    _count_rejects(snapshot, grouping, groups)
    return Statistics.of(recipe, groups, by, len(uris))


def _count_rows(snapshot: Snapshot, grouping: Grouping, groups: Groups) -> set[str]:
    """Count every row; the files that have any."""
    uris: set[str] = set()
    names = [*COLUMNS, *([grouping.column] if grouping.column is not None else [])]
    for batch in scan(snapshot, names, doing="counting", batch_rows=ROWS_PER_BATCH):
        columns = [batch.column(name).to_pylist() for name in names]
        values = columns[-1] if grouping.column is not None else [None] * batch.num_rows
        uris.update(columns[0])
        for uri, index, n_tokens, hashed, value in zip(*columns[:4], values, strict=True):
            tally = groups.of(grouping.name(uri, value))
            tally.documents += index == 0
            tally.chunk_lengths.add(n_tokens)
            tally.chunk_digests.append(digest_number(hashed))
    return uris


def _count_rejects(snapshot: Snapshot, grouping: Grouping, groups: Groups) -> None:
    rejects = ledger.rejects_table(snapshot.table).open_if_made()
    if rejects is None:
        return
    for batch in scan(rejects, ["source_uri", "reason"], doing="counting"):
        for uri, reason in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            groups.of(grouping.name(uri)).reasons[reason] += 1
