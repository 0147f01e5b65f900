"""Comparisons of a column with values, as SQL: the leaves of every filter that is a structure.

No SQL comes from whoever asks: the column stands in backticks, and every value is a parameter of
``Query``, which reads it as one of the column's type.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from embedding_core.errors import UsageError
from embedding_core.records import Scalar

Operator = Literal[
    "=", "!=", "<", "<=", ">", ">=", "in", "not in",
    "contains", "contains in any case", "starts with", "is missing", "is there",
]  # fmt: skip
ORDER: tuple[Operator, ...] = ("=", "!=", "<", "<=", ">", ">=")
AMONG: tuple[Operator, ...] = ("in", "not in")
"""They take a list of values."""
OF_TEXTS: tuple[Operator, ...] = ("contains", "contains in any case", "starts with")
PRESENCE: tuple[Operator, ...] = ("is missing", "is there")
"""They take no value."""
MOST_VALUES = 1_000
"""Values of a filter, all comparisons together."""
PLAIN = str | int | float | datetime
SQL: Mapping[Operator, str] = {
    **{operator: f"{{column}} {operator} {{value}}" for operator in ORDER},
    "!=": "({column} = {value}) IS NOT TRUE",
    "in": "{column} IN ({value})",
    "not in": "({column} IN ({value})) IS NOT TRUE",
    "contains": "contains({column}, {value})",
    "contains in any case": "contains(lower({column}), lower({value}))",
    "starts with": "starts_with({column}, {value})",
    "is missing": "{column} IS NULL",
    "is there": "{column} IS NOT NULL",
}
"""What is not equal, and what is not in a list, includes rows without a value."""


@dataclass(frozen=True, slots=True)
class Comparisons:
    """Writes comparisons, and keeps their values."""

    params: dict[str, Scalar] = field(default_factory=dict)

    def sql(self, column: str, operator: Operator, value: Any) -> str:
        """A comparison; nothing is in an empty list.

        ``column`` is the name of a column, without a backtick. Raises ``UsageError`` for a value
        that the operator does not take.
        """
        values = _values(column, operator, value)
        if operator in AMONG and not values:
            return "FALSE" if operator == "in" else "TRUE"
        names = ", ".join(map(self._named, values))
        return SQL[operator].format(column=f"`{column}`", value=names)

    def _named(self, value: Scalar) -> str:
        if len(self.params) == MOST_VALUES:
            raise UsageError(f"the filter has more than {MOST_VALUES:,} values; give fewer")
        name = f"v{len(self.params)}"
        self.params[name] = value
        return f":{name}"


def _values(column: str, operator: Operator, value: Any) -> Sequence[Scalar]:
    subject = f"the filter {operator!r} of {column!r}"
    if operator in PRESENCE and value is not None:
        raise UsageError(f"{subject} takes no value")
    values = () if operator in PRESENCE else value if operator in AMONG else (value,)
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise UsageError(f"{subject} takes a list of values, not {shown(value)}")
    kind, expected = (str, "text") if operator in OF_TEXTS else (PLAIN, "single value")
    for single in values:
        if not isinstance(single, kind):
            raise UsageError(f"{subject} compares with {shown(single)}; give a {expected}")
    return values


def shown(value: Any) -> str:
    """A value in a message."""
    text = repr(value)
    return text if len(text) <= 80 else text[:79] + "…"
