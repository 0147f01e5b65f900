"""Filters of other libraries: trees of comparisons, as the libraries' users write them.

    {"year": {"$gte": 2020}, "$or": [{"tag": "news"}, {"tag": None}]}

A column stands for itself, its value or the comparisons that it must pass beside it; ``$and``,
``$or`` and ``$not`` join trees. No SQL comes from the tree: a name must be that of a column.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from embedding_core.errors import UsageError
from embedding_core.lake.query.comparisons import Comparisons, Operator, shown
from embedding_core.lake.query.search import Query

OPERATORS: Mapping[str, Operator] = {
    "$eq": "=",
    "$ne": "!=",
    "$lt": "<",
    "$lte": "<=",
    "$gt": ">",
    "$gte": ">=",
    "$in": "in",
    "$nin": "not in",
    "$contains": "contains",
    "$icontains": "contains in any case",
}
OF_NONE: Mapping[str, Operator] = {"$eq": "is missing", "$ne": "is there"}
JOINS = {"$and": " AND ", "$or": " OR "}
DEEPEST = 32
"""Trees in trees."""


def filtered(query: Query, tree: Mapping[str, Any] | None) -> Query:
    """The query, for rows alone that pass the tree; None and an empty tree let all rows pass.

    Raises ``UsageError`` for what is not a tree, and when the query has a filter already.
    """
    if not tree:
        return query
    if query.where is not None:
        raise UsageError("there are two filters, where and a tree; give either")
    sql = _Sql()
    where = sql.tree(tree, 0)
    return replace(query, where=where, params=sql.comparisons.params)


@dataclass(frozen=True, slots=True)
class _Sql:
    """Writes a tree as SQL."""

    comparisons: Comparisons = field(default_factory=Comparisons)

    def tree(self, tree: Any, depth: int) -> str:
        """All that a tree says, together."""
        if not isinstance(tree, Mapping):
            raise UsageError(
                f"the filter has {shown(tree)} where a mapping of columns to values belongs"
            )
        if depth > DEEPEST:
            raise UsageError(f"the filter has trees in trees beyond {DEEPEST}; write a flatter one")
        return _joined(
            [self._entry(name, content, depth) for name, content in tree.items()], "$and"
        )

    def _entry(self, name: Any, content: Any, depth: int) -> str:
        if name in JOINS:
            if isinstance(content, str | Mapping) or not isinstance(content, Sequence):
                raise UsageError(f"{name} in a filter joins a list of filters")
            return _joined([self.tree(term, depth + 1) for term in content], name)
        if name == "$not":
            return f"({self.tree(content, depth + 1)}) IS NOT TRUE"
        column = _column(name)
        comparisons = content if isinstance(content, Mapping) else {"$eq": content}
        if not comparisons:
            raise UsageError(f"the filter says nothing of {name!r}; give a value")
        return _joined([self._compared(column, *pair) for pair in comparisons.items()], "$and")

    def _compared(self, column: str, operator: Any, value: Any) -> str:
        if operator not in OPERATORS:
            raise UsageError(
                f"the filter compares column {column!r} by {shown(operator)}; use one of "
                f"{', '.join(OPERATORS)}"
            )
        if value is None and operator in OF_NONE:
            return self.comparisons.sql(column, OF_NONE[operator], None)
        return self.comparisons.sql(column, OPERATORS[operator], value)


def _joined(parts: Sequence[str], operator: str) -> str:
    if not parts:
        return "TRUE" if operator == "$and" else "FALSE"
    return parts[0] if len(parts) == 1 else JOINS[operator].join(f"({term})" for term in parts)


def _column(name: Any) -> str:
    if not isinstance(name, str) or not name.isidentifier():
        raise UsageError(
            f"the filter names {shown(name)}, which is no column; a column has letters, digits "
            f"and underscores, and trees are joined by {', '.join(JOINS)} and $not"
        )
    return name
