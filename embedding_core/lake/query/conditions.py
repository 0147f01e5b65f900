"""Filters as lists of conditions: a column, an operator, a value. All must hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from embedding_core.errors import UsageError
from embedding_core.lake import schema
from embedding_core.lake.filters import column_types
from embedding_core.lake.query.comparisons import (
    AMONG,
    OF_TEXTS,
    ORDER,
    PRESENCE,
    Comparisons,
    Operator,
)
from embedding_core.lake.query.search import Query
from embedding_core.recipe import RESERVED_COLUMNS
from embedding_core.records import ColumnType, Scalar

FILTERABLE = ("source_uri", "doc_id", "n_tokens")
"""Columns of every table that may be filtered by, beside the metadata columns."""
MOST_CONDITIONS = 32
"""Conditions of a query."""
OPERATORS: Mapping[ColumnType, tuple[Operator, ...]] = {
    "string": ("=", "!=", *AMONG, *OF_TEXTS, *PRESENCE),
    "int": (*ORDER, *AMONG, *PRESENCE),
    "float": (*ORDER, *PRESENCE),
    "bool": ("=", "!=", *PRESENCE),
    "timestamp": (*ORDER, *PRESENCE),
}
"""What a column of a type can be asked."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A column compared with a value; rows for which it does not hold are not searched."""

    column: str
    operator: Operator
    value: Scalar | Sequence[Scalar] = None
    """Several for ``in`` and ``not in``, none for ``is missing`` and ``is there``."""


def filterable_columns(arrow_schema: pa.Schema) -> dict[str, ColumnType]:
    """Columns that may be filtered by, with their types: the metadata first."""
    types = column_types(arrow_schema)
    metadata = [
        name
        for name in arrow_schema.names
        if name not in RESERVED_COLUMNS and not schema.is_vector_column(name)
    ]
    return {
        name: types[name.lower()]
        for name in (*metadata, *FILTERABLE)
        if name.lower() in types and "`" not in name
    }


def conditioned(query: Query, conditions: Sequence[Condition], arrow_schema: pa.Schema) -> Query:
    """The query, for rows alone for which all conditions hold. Names of columns are the schema's.

    Raises ``UsageError`` for a column that cannot be filtered by, for an operator that its type
    does not have, and for a value of another type.
    """
    if not conditions:
        return query
    if len(conditions) > MOST_CONDITIONS:
        raise UsageError(f"{len(conditions)} filters; give at most {MOST_CONDITIONS}")
    types, comparisons = filterable_columns(arrow_schema), Comparisons()
    parts = []
    for condition in conditions:
        _check(condition, types)
        parts.append(comparisons.sql(condition.column, condition.operator, condition.value))
    where = " AND ".join(f"({part})" for part in parts)
    narrowed = replace(query, where=where, params=comparisons.params)
    narrowed.condition(arrow_schema)  # says now what is wrong, before a model works for the query
    return narrowed


def _check(condition: Condition, types: Mapping[str, ColumnType]) -> None:
    declared = types.get(condition.column)
    if declared is None:
        raise UsageError(
            f"the table has no column {condition.column[:80]!r} to filter by; it has "
            f"{', '.join(types)}"
        )
    if condition.operator not in OPERATORS[declared]:
        raise UsageError(
            f"the filter of {condition.column!r} says {condition.operator[:80]!r}; the column is "
            f"{declared}: use {', '.join(map(repr, OPERATORS[declared]))}"
        )
