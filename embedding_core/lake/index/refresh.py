"""All indexes of a table brought up to date, in one place for runs, maintenance and repair."""

from __future__ import annotations

from dataclasses import dataclass

from embedding_core.lake.disk.flushing import INDEX_ROOMS, flushed
from embedding_core.lake.index.broken import check_index_sizes, drop_broken_indexes
from embedding_core.lake.index.scalar import refresh_scalar_indexes
from embedding_core.lake.index.vector import IndexReport, refresh_vector_index
from embedding_core.lake.snapshot import Snapshot
from embedding_core.recipe import IndexSpec, Recipe


@dataclass(frozen=True, slots=True)
class IndexPlan:
    """Which indexes a recipe asks for."""

    spec: IndexSpec
    text_hash: bool
    """Whether texts are looked up in the whole table."""

    @classmethod
    def of(cls, recipe: Recipe) -> IndexPlan:
        """The recipe's ``index`` section, and what its ``reuse`` needs."""
        return cls(recipe.index, text_hash=recipe.reuse == "table")


def refresh_indexes(snapshot: Snapshot, plan: IndexPlan, merge: bool = False) -> IndexReport | None:
    """Bring the scalar indexes and that on ``vector`` up to date; None without a vector index.

    ``merge`` makes one part of each index. Call it through
    ``faults.tried_again``: another run may be indexing the same rows.
    """
    with flushed(snapshot.table.uri, *INDEX_ROOMS):
        # 1. Indexes that cannot be used go first: a filter would fail with them.
        drop_broken_indexes(snapshot)
        if not snapshot.n_rows:
            return None
        # 2. Scalar indexes, then the vector index.
        snapshot = snapshot.newest()
        refresh_scalar_indexes(snapshot, plan.spec.full_text, plan.text_hash, merge)
        index = refresh_vector_index(snapshot, plan.spec, merge)
    # 3. A write may have been lost: then the index is dropped and ``Transient`` raised.
    check_index_sizes(snapshot.newest())
    return index
