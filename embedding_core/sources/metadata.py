"""Metadata values: from what a file holds to the declared column type, or a reject.

Missing and null are null, and so is NaN, which is how data frames write a missing number. Nothing
is converted by guessing: ``"3"`` is not an int, ``true`` is not an int, ``3.0`` is not an int.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, date, datetime

from embedding_core.errors import RejectedInput
from embedding_core.recipe import ColumnType
from embedding_core.records import Scalar
from embedding_core.sources.records import shown, type_name

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1


def convert(value: object, declared: ColumnType, name: str) -> Scalar:
    """The value as ``declared``; timestamps become aware datetimes in UTC.

    Raises ``RejectedInput("wrong_type")`` with the field's name, the expected and the found type.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    converted = _CONVERTERS[declared](value)
    if converted is None:
        raise RejectedInput(
            "wrong_type",
            f"field {name!r}: expected {_EXPECTED[declared]}, "
            f"got {type_name(value)} {shown(value)}",
        )
    return converted


def _string(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _int(value: object) -> int | None:
    is_int = isinstance(value, int) and not isinstance(value, bool)
    return value if is_int and INT64_MIN <= value <= INT64_MAX else None  # type: ignore[operator, return-value]


def _float(value: object) -> float | None:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _bool(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _timestamp(value: object) -> datetime | None:
    """A time without a zone is taken as UTC, a date as its midnight."""
    try:
        if isinstance(value, str):
            value = datetime.fromisoformat(value)
        elif isinstance(value, date) and not isinstance(value, datetime):
            value = datetime(value.year, value.month, value.day)
        if not isinstance(value, datetime):
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


_CONVERTERS: dict[ColumnType, Callable[[object], Scalar]] = {
    "string": _string,
    "int": _int,
    "float": _float,
    "bool": _bool,
    "timestamp": _timestamp,
}

_EXPECTED: dict[ColumnType, str] = {
    "string": "string",
    "int": "int of 64 bits",
    "float": "finite number",
    "bool": "bool",
    "timestamp": "timestamp (ISO 8601)",
}
