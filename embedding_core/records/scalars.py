"""Values of the declared column types, and how a text gives one.

Folder names, values in filters and arguments of a command are texts without a type. Values in a
record have one, which ``sources.mapping.metadata`` checks.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from embedding_core.records.documents import ColumnType, Scalar

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1

EXPECTED: dict[ColumnType, str] = {
    "string": "string",
    "int": "int of 64 bits",
    "float": "finite number",
    "bool": "bool",
    "timestamp": "timestamp (ISO 8601)",
}
"""What a value must be, for a person."""

_WHOLE = re.compile(r"[+-]?[0-9]{1,30}")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


def from_text(text: str, declared: ColumnType) -> Scalar:
    """The value that a text writes out. Raises ``ValueError``, with what was expected."""
    value = _READ[declared](text)
    if value is None:
        raise ValueError(f"expected {EXPECTED[declared]}, got {text[:80]!r}")
    return value


def finite(value: Any) -> Any:
    """The value as JSON can carry it: None for NaN and infinity, in lists and objects too."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: finite(inner) for name, inner in value.items()}
    return list(map(finite, value)) if isinstance(value, list | tuple) else value


def in_utc(moment: datetime) -> datetime:
    """The moment in UTC, where a time without a zone is one already.

    Raises ``OverflowError`` when that is before the year 1 or after 9999.
    """
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def timestamp(text: str) -> datetime | None:
    """The moment of an ISO 8601 text, a date as its midnight; None for any other text."""
    try:
        return in_utc(datetime.fromisoformat(text))
    except (ValueError, OverflowError):
        return None


def _int(text: str) -> int | None:
    number = int(text) if _WHOLE.fullmatch(text) else INT64_MAX + 1
    return number if INT64_MIN <= number <= INT64_MAX else None


def _float(text: str) -> float | None:
    number = float(text) if _NUMBER.fullmatch(text) else math.inf
    return number if math.isfinite(number) else None


_READ: dict[ColumnType, Callable[[str], Scalar]] = {
    "string": str,
    "int": _int,
    "float": _float,
    "bool": lambda text: {"true": True, "false": False}.get(text.lower()),
    "timestamp": timestamp,
}
