"""SQL for Lance filters with every value quoted, never pasted.

Lance filters are DataFusion SQL: strings stand in single quotes, a quote inside is doubled. Where
standard SQL has double quotes around the name of a column, Lance expects backticks. Lance compares
a column only with values of its type, so a text beside a column is converted to that type.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

import pyarrow as pa

from embedding_core.errors import UsageError
from embedding_core.lake import schema
from embedding_core.plurals import counted
from embedding_core.records import ColumnType, Scalar
from embedding_core.records.scalars import EXPECTED, INT64_MAX, INT64_MIN, from_text, in_utc

KEYS_PER_SCAN = 1_000
"""Keys named in one filter: 1,000 digests make an expression of 70 kB."""

_TOKEN = re.compile(
    r"""(?P<string>'(?:[^']|'')*') | "(?P<quoted>(?:[^"]|"")*)" | `(?P<ticked>[^`]*)`
    | (?<![:\w]):(?P<param>[A-Za-z_]\w*) | (?P<word>\w+) | (?P<compare>[<>=!]+) | \S""",
    re.VERBOSE,
)
_WORDS_OF_SQL = frozenset([
    "AND", "AS", "BETWEEN", "CASE", "DISTINCT", "ELSE", "END", "ESCAPE", "FALSE", "FROM", "ILIKE",
    "IN", "IS", "LIKE", "NOT", "NULL", "OR", "SIMILAR", "THEN", "TO", "TRUE", "UNKNOWN", "WHEN",
])  # fmt: skip
_SMALLEST = f"({INT64_MIN + 1} - 1)"
"""The smallest int: SQL reads a minus and a number, and that number is beyond 64 bits."""


def quote(value: Scalar) -> str:
    """The SQL literal of a value; a time without a zone is in UTC.

    Raises ``UsageError`` for a value that no column can hold.
    """
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, int):
        if not INT64_MIN <= value <= INT64_MAX:
            raise UsageError(
                f"an int of {counted(value.bit_length(), 'bit')} is beyond the 64 bits of a "
                "column; use a smaller one"
            )
        return _SMALLEST if value == INT64_MIN else str(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise UsageError(f"{value} cannot be compared in a filter; use a finite number")
        return repr(value)
    if isinstance(value, datetime):
        return f"TIMESTAMP '{_utc(value).replace(tzinfo=None).isoformat(' ', 'microseconds')}'"
    if not isinstance(value, str):
        raise UsageError(
            f"a {type(value).__name__} cannot be compared in a filter; use a text, a number, a "
            "bool, a datetime or None"
        )
    return "'" + value.replace("'", "''") + "'"


def is_in(column: str, values: Collection[str]) -> str:
    """``column IN ('a', 'b')``; ``FALSE`` for no values."""
    if not values:
        return "FALSE"
    return f"{column} IN ({', '.join(quote(value) for value in sorted(values))})"


def column_types(arrow_schema: pa.Schema) -> dict[str, ColumnType]:
    """Types of a table's columns, by their names in lower case, as SQL looks for them."""
    types: dict[str, ColumnType] = {}
    for field in arrow_schema:
        for declared, is_of_type in _IS_OF_TYPE.items():
            if is_of_type(field.type):
                types[field.name.lower()] = declared
    return types


def unknown_columns(where: str, arrow_schema: pa.Schema) -> list[str]:
    """Names in a filter that stand where a column does and are not the table's, in order."""
    tokens = _Tokens(list(_TOKEN.finditer(where)), {})
    columns = {name.lower() for name in arrow_schema.names}
    names = dict.fromkeys(filter(None, map(tokens.column_named, range(len(tokens.all)))))
    return [name for name in names if name.lower() not in columns and not name.startswith("_row")]


def why_refused(where: str, condition: str, arrow_schema: pa.Schema, cause: str) -> str:
    """Why a filter cannot be used. ``condition`` is ``where`` with its values in it, ``cause`` what
    Lance says of it."""
    if unknown := unknown_columns(where, arrow_schema):
        names = [name for name in arrow_schema.names if not schema.is_vector_column(name)]
        return (
            f"the filter {where!r} names {', '.join(map(repr, unknown))}, and the table has no "
            f"such column; its columns are {', '.join(names)}"
        )
    return f"the filter {condition!r} cannot be used: {cause}"


_IS_OF_TYPE: Mapping[ColumnType, Callable[[pa.DataType], bool]] = {
    "string": pa.types.is_string,
    "int": pa.types.is_integer,
    "float": pa.types.is_floating,
    "bool": pa.types.is_boolean,
    "timestamp": pa.types.is_timestamp,
}


_PYTHON: Mapping[ColumnType, tuple[type, ...]] = {
    "string": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "timestamp": (datetime,),
}


def bind(
    where: str, params: Mapping[str, Scalar], types: Mapping[str, ColumnType] | None = None
) -> str:
    """``where`` with each ``:name`` outside quotes replaced by its quoted value.

    A text, named or written out, that is compared with a column of another of ``types`` is read as
    a value of that type. Raises ``UsageError`` when a name has no value, a value no name, or a
    value is not one of its column's type.
    """
    tokens = _Tokens(list(_TOKEN.finditer(where)), types or {})
    bound, end = [], 0
    for at, token in enumerate(tokens.all):
        bound += [where[end : token.start()], _bound(tokens, at, params)]
        end = token.end()
    if unused := sorted(set(params) - {token["param"] for token in tokens.all}):
        raise UsageError(f"parameter {unused[0]!r} is not in the filter {where!r}; write :name")
    return "".join([*bound, where[end:]])


def _bound(tokens: _Tokens, at: int, params: Mapping[str, Scalar]) -> str:
    token = tokens.all[at]
    if token["quoted"] is not None:
        return "`" + token["quoted"].replace('""', '"') + "`"
    if token["string"] is not None:
        text = token["string"][1:-1].replace("''", "'")
        return quote(_typed(text, tokens.compared_with(at)))
    name = token["param"]
    if name is None:
        return token[0]
    if name not in params:
        names = ", ".join(sorted(params)) or "none"
        raise UsageError(f"the filter names :{name} but no such parameter was given ({names})")
    return quote(_typed(params[name], tokens.compared_with(at)))


def _typed(value: Scalar, column: _Column | None) -> Scalar:
    """The value as one of a column's type; a text is read as such, a whole number in a float is an
    int. Nothing can be compared with None, which stays what it is."""
    if column is None or value is None:
        return value
    if isinstance(value, str):
        try:
            return from_text(value, column.type)
        except ValueError as error:
            raise UsageError(f"column {column.name!r} cannot be compared: {error}") from error
    if isinstance(value, float) and column.type == "int" and value.is_integer():
        value = int(value)
    is_bool = isinstance(value, bool)
    if is_bool != (column.type == "bool") or not isinstance(value, _PYTHON[column.type]):
        raise UsageError(
            f"column {column.name!r} cannot be compared: expected {EXPECTED[column.type]}, got "
            f"{str(value)[:80]!r}"
        )
    return value


def _utc(moment: datetime) -> datetime:
    try:
        return in_utc(moment)
    except OverflowError as error:
        raise UsageError(f"{moment} is outside the years 1 to 9999 in UTC") from error


class _Column(NamedTuple):
    name: str
    type: ColumnType


@dataclass(frozen=True, slots=True)
class _Tokens:
    """A filter in pieces."""

    all: Sequence[re.Match[str]]
    types: Mapping[str, ColumnType]

    def compared_with(self, at: int) -> _Column | None:
        """The column that a value stands beside: ``c = v``, ``v = c``,
        ``c BETWEEN v AND v`` or ``c IN (v, v)``; None without such a column."""
        if self._is_comparison(at - 1):
            return self._column(at - 2)
        if self._is_comparison(at + 1) and self._text(at + 3) != "(":
            return self._column(at + 2)
        if self._text(at - 1) == "BETWEEN":
            return self._column_before(at - 1)
        if self._text(at - 1) == "AND" and self._text(at - 3) == "BETWEEN":
            return self._column_before(at - 3)
        first = at
        while self._text(first - 1) == ",":
            first -= 2
        if self._text(first - 1) == "(" and self._text(first - 2) == "IN":
            return self._column_before(first - 2)
        return None

    def column_named(self, at: int) -> str | None:
        """The column that a token names; None for words of SQL, functions, types, parts of a value
        and other tokens."""
        token = self.all[at]
        if (quoted := token["quoted"] or token["ticked"]) is not None:
            return quoted.replace('""', '"')
        word, before, after = token["word"] or "", self._text(at - 1), self._text(at + 1)
        is_type = before in ("AS", ":") or after.startswith("'")
        is_part = before in (".", ":") or after in ("(", "FROM")
        if not word.isidentifier() or word.upper() in _WORDS_OF_SQL or is_type or is_part:
            return None
        return word

    def _column_before(self, at: int) -> _Column | None:
        return self._column(at - 2 if self._text(at - 1) == "NOT" else at - 1)

    def _column(self, at: int) -> _Column | None:
        if not 0 <= at < len(self.all):
            return None
        token = self.all[at]
        name = token["word"] or token["quoted"] or token["ticked"] or ""
        declared = self.types.get(name.lower())
        return None if declared is None else _Column(name, declared)

    def _is_comparison(self, at: int) -> bool:
        return 0 <= at < len(self.all) and self.all[at]["compare"] is not None

    def _text(self, at: int) -> str:
        return self.all[at][0].upper() if 0 <= at < len(self.all) else ""
