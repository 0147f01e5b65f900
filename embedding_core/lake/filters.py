"""SQL for Lance filters with every value quoted, never pasted.

Lance filters are DataFusion SQL: strings stand in single quotes, a quote inside is doubled.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime

from embedding_core.errors import UsageError
from embedding_core.records import Scalar

_TOKEN = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|(?<![:\w]):([A-Za-z_]\w*)")
"""String literals and quoted names are passed over, so that ``':x'`` stays text."""


KEYS_PER_SCAN = 1_000
"""Keys named in one filter: 1,000 digests make an expression of 70 kB."""


def quote(value: Scalar) -> str:
    """The SQL literal of a value. Raises ``UsageError`` for a float that is not finite."""
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"{value} cannot be compared in a filter; use a finite number")
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, datetime):
        return f"TIMESTAMP '{value.astimezone(UTC).strftime('%Y-%m-%d %H:%M:%S.%f')}'"
    return "'" + value.replace("'", "''") + "'"


def is_in(column: str, values: Collection[str]) -> str:
    """``column IN ('a', 'b')``; ``FALSE`` for no values."""
    if not values:
        return "FALSE"
    return f"{column} IN ({', '.join(quote(value) for value in sorted(values))})"


def bind(where: str, params: Mapping[str, Scalar]) -> str:
    """``where`` with each ``:name`` outside quotes replaced by its quoted value.

    Raises ``UsageError`` when a name has no value, or a value no name.
    """
    used: set[str] = set()

    def literal(match: re.Match[str]) -> str:
        name = match.group(1)
        if name is None:
            return match.group(0)
        if name not in params:
            known = ", ".join(sorted(params)) or "none"
            raise UsageError(f"the filter names :{name} but no such parameter was given ({known})")
        used.add(name)
        return quote(params[name])

    bound = _TOKEN.sub(literal, where)
    if unused := sorted(set(params) - used):
        raise UsageError(f"parameter {unused[0]!r} is not in the filter {where!r}; write :name")
    return bound
