"""Filters as structures: a column, an operator, a value. No SQL comes from whoever asks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import pyarrow as pa

from embedding_core.errors import UsageError
from embedding_core.lake import schema
from embedding_core.lake.filters import column_types
from embedding_core.recipe import RESERVED_COLUMNS
from embedding_core.records import ColumnType, Scalar
from embedding_core.records.scalars import EXPECTED, from_text

Operator = Literal[
    "=", "!=", "<", "<=", ">", ">=", "in", "contains", "starts with", "is missing", "is there"
]
FILTERABLE = ("source_uri", "doc_id", "n_tokens")
"""Columns of every table that may be filtered by, beside the metadata columns."""
MOST_CONDITIONS = 32
"""Conditions of a query."""
MOST_VALUES = 1_000
"""Values of an ``in``."""

_COMPARED: tuple[Operator, ...] = ("=", "!=", "<", "<=", ">", ">=")
_OF_ANY_TYPE: tuple[Operator, ...] = ("is missing", "is there")
OPERATORS: Mapping[ColumnType, tuple[Operator, ...]] = {
    "string": ("=", "!=", "in", "contains", "starts with", *_OF_ANY_TYPE),
    "int": (*_COMPARED, "in", *_OF_ANY_TYPE),
    "float": (*_COMPARED, *_OF_ANY_TYPE),
    "bool": ("=", "!=", *_OF_ANY_TYPE),
    "timestamp": (*_COMPARED, *_OF_ANY_TYPE),
}
"""What a column of a type can be asked."""
_SQL: Mapping[Operator, str] = {
    **{operator: f"{{column}} {operator} {{value}}" for operator in _COMPARED},
    "!=": "({column} = {value}) IS NOT TRUE",
    "in": "{column} IN ({value})",
    "contains": "contains({column}, {value})",
    "starts with": "starts_with({column}, {value})",
    "is missing": "{column} IS NULL",
    "is there": "{column} IS NOT NULL",
}
"""What is not equal includes rows without a value."""
_PYTHON: Mapping[ColumnType, tuple[type, ...]] = {
    "string": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "timestamp": (datetime,),
}


@dataclass(frozen=True, slots=True)
class Condition:
    """A column compared with a value; rows for which it does not hold are not searched."""

    column: str
    operator: Operator
    value: Scalar | Sequence[Scalar] = None
    """Several for ``in``, none for ``is missing`` and ``is there``."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Conditions as SQL with names for their values, as ``Query`` takes them."""

    where: str | None
    params: Mapping[str, Scalar]


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


def filter_of(conditions: Sequence[Condition], arrow_schema: pa.Schema) -> Filter:
    """All conditions together. Names of columns are the schema's, and every value is a parameter.

    Raises ``UsageError`` for a column that cannot be filtered by, for an operator that its type
    does not have, and for a value of another type.
    """
    if len(conditions) > MOST_CONDITIONS:
        raise UsageError(f"{len(conditions)} filters; give at most {MOST_CONDITIONS}")
    types = filterable_columns(arrow_schema) if conditions else {}
    parts: list[str] = []
    params: dict[str, Scalar] = {}
    for condition in conditions:
        declared = _declared(condition, types)
        names = []
        for value in _values(condition):
            names.append(f":v{len(params)}")
            params[f"v{len(params)}"] = _typed(value, condition.column, declared)
        sql = _SQL[condition.operator]
        parts.append(sql.format(column=f"`{condition.column}`", value=", ".join(names)))
    return Filter(" AND ".join(f"({term})" for term in parts) or None, params)


def _declared(condition: Condition, types: Mapping[str, ColumnType]) -> ColumnType:
    """The type of a condition's column, which must have the operator."""
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
    return declared


def _values(condition: Condition) -> Sequence[Scalar]:
    value, operator = condition.value, condition.operator
    is_list = isinstance(value, Sequence) and not isinstance(value, str)
    if operator in _OF_ANY_TYPE:
        if value is not None:
            raise UsageError(f"the filter {operator!r} of {condition.column!r} takes no value")
        return ()
    if is_list != (operator == "in"):
        expected = "a list of values" if operator == "in" else "a single value"
        raise UsageError(f"the filter {operator!r} of {condition.column!r} takes {expected}")
    values: Sequence[Scalar] = tuple(value) if is_list else (value,)  # type: ignore[arg-type,assignment]
    if not 1 <= len(values) <= MOST_VALUES:
        raise UsageError(
            f"the filter of {condition.column!r} has {len(values):,} values; give 1 to "
            f"{MOST_VALUES:,}"
        )
    return values


def _typed(value: Scalar, column: str, declared: ColumnType) -> Scalar:
    """The value as one of the column's type; a text is read as such."""
    if isinstance(value, str) and declared != "string":
        try:
            return from_text(value, declared)
        except ValueError as error:
            raise UsageError(f"the filter of {column!r}: {error}") from error
    fits = isinstance(value, _PYTHON[declared]) and isinstance(value, bool) == (declared == "bool")
    if not fits:
        raise UsageError(
            f"the filter of {column!r}: expected {EXPECTED[declared]}, got {str(value)[:80]!r}"
        )
    return value
