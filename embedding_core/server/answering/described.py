"""What can be asked of a table: its spaces, and the columns to filter by."""

from __future__ import annotations

from embedding_core.errors import SetupError
from embedding_core.lake.query.conditions import OPERATORS, filterable_columns
from embedding_core.lake.schema import FULL_TEXT_INDEX
from embedding_core.lake.snapshot import Snapshot
from embedding_core.lake.spaces.vector_columns import columns
from embedding_core.recipe import ModelSpec
from embedding_core.records import Scalar
from embedding_core.runs.space.bridging import has_bridge
from embedding_core.server.answering.exact_values import exact
from embedding_core.server.answering.messages import BRIDGE, ColumnInfo, SpaceInfo

ROWS_LOOKED_AT = 1_000
"""First rows, from which examples of values are taken."""
MOST_VALUES = 20
LONGEST_VALUE = 80
"""Characters of an example."""


def space_infos(snapshot: Snapshot, bridge_from: ModelSpec | None = None) -> list[SpaceInfo]:
    """Every space of the table, the one in service first, and the bridge that ``bridge_from`` has
    to it."""
    infos = [
        SpaceInfo(
            space.column,
            space.state,
            space.space_id,
            space.model,
            space.dim,
            space.filled_share,
        )
        for space in columns(snapshot)
    ]
    if bridge_from is not None and _is_offered(snapshot, bridge_from):
        space_id, space = snapshot.space()
        infos.append(SpaceInfo(BRIDGE, BRIDGE, space_id, bridge_from.name, space.dim, 1.0))
    return infos


def _is_offered(snapshot: Snapshot, model: ModelSpec) -> bool:
    """Whether a bridge can be asked; a model that has gone, or a damaged bridge, hides no table."""
    try:
        return has_bridge(snapshot, model)
    except SetupError:
        return False


def column_infos(snapshot: Snapshot) -> list[ColumnInfo]:
    """The columns to filter by, with values that the first rows have."""
    types = filterable_columns(snapshot.schema)
    with snapshot.table.faults("reading"):
        rows = snapshot.dataset.to_table(columns=list(types), limit=ROWS_LOOKED_AT)
    return [
        ColumnInfo(name, kind, OPERATORS[kind], _examples(rows.column(name).to_pylist()))
        for name, kind in types.items()
    ]


def has_full_text(snapshot: Snapshot) -> bool:
    """Whether hybrid search is possible."""
    return any(index.name == FULL_TEXT_INDEX for index in snapshot.dataset.describe_indices())


def _examples(values: list[Scalar]) -> list[Scalar]:
    """Values that differ, the most frequent first."""
    counts: dict[Scalar, int] = {}
    for value in values:
        is_number = value is not None and value == value  # NaN is not equal to itself
        if is_number and len(str(value)) <= LONGEST_VALUE:
            counts[value] = counts.get(value, 0) + 1
    common = sorted(counts, key=lambda value: -counts[value])
    return [exact(value) for value in common[:MOST_VALUES]]
