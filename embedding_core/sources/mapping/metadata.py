"""Metadata values: from what a file or its folders say to the declared column type, or a reject.

Missing and null are null, and so is NaN, which is how data frames write a missing number. They
also write a column of whole numbers with one missing as floats: ``3.0`` is the int 3. Beyond that
nothing is converted by guessing: ``"3"`` is not an int, nor are ``true`` and ``3.5``. A format that
has texts alone says so by ``Cell``, and its texts are read as the declared type.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import date, datetime
from decimal import Decimal
from urllib.parse import unquote
from uuid import UUID

from embedding_core.errors import RejectedInput
from embedding_core.reasons import WRONG_TYPE
from embedding_core.recipe import MetadataColumn
from embedding_core.records import ColumnType, Scalar
from embedding_core.records.scalars import (
    EXPECTED,
    INT64_MAX,
    INT64_MIN,
    from_text,
    in_utc,
    timestamp,
)
from embedding_core.sources.formats.format import (
    EXACT_BELOW,
    Cell,
    ColumnFloat,
    Undecodable,
    type_name,
    wrong_type,
)


def convert(value: object, declared: ColumnType, name: str) -> Scalar:
    """The value as ``declared``; timestamps become aware datetimes in UTC.

    Raises ``RejectedInput("wrong_type")`` with the field's name, the expected and the found type.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, Cell):
        return _of_cell(value, declared, name)
    converted = _CONVERTERS[declared](value)
    if converted is None:
        raise _misdeclared(name, declared, value)
    return converted


def _misdeclared(name: str, declared: ColumnType, value: object) -> RejectedInput:
    """The reject of a value that is not of its column's type, with the type that would take it."""
    other = type_name(value)
    if other == declared:  # a number out of bounds, a text that is no timestamp
        other = "string"
    advice = f"mend the value, or declare {name} as {other}" if other in EXPECTED else ""
    return wrong_type(name, EXPECTED[declared], value, advice)


def _of_cell(cell: Cell, declared: ColumnType, name: str) -> Scalar:
    """The value that a text stands for; an empty one is null where no text is declared."""
    if not cell and declared != "string":
        return None
    try:
        return from_text(cell, declared)
    except ValueError as error:
        raise _misdeclared(name, declared, cell) from error


def whole(value: object) -> int | None:
    """The whole number that a value is, whatever type holds it; None for any other value."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        limit = value.exact_below if isinstance(value, ColumnFloat) else EXACT_BELOW
        return int(value) if abs(value) < limit and value == math.floor(value) else None
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else None
    return None


def _string(value: object) -> str | None:
    if isinstance(value, UUID):
        return str(value)
    return value if isinstance(value, str) else None


def _int(value: object) -> int | None:
    number = whole(value)
    return number if number is not None and INT64_MIN <= number <= INT64_MAX else None


def _float(value: object) -> float | None:
    if not isinstance(value, (int, float, Decimal)) or isinstance(value, bool):
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
            return timestamp(value)
        if isinstance(value, date) and not isinstance(value, datetime):
            value = datetime(value.year, value.month, value.day)
        return in_utc(value) if isinstance(value, datetime) else None
    except OverflowError:
        return None


_CONVERTERS: dict[ColumnType, Callable[[object], Scalar]] = {
    "string": _string,
    "int": _int,
    "float": _float,
    "bool": _bool,
    "timestamp": _timestamp,
}

NULL = "__HIVE_DEFAULT_PARTITION__"
"""The folder of rows whose value is null."""


def folder_values(
    uri: str, columns: Mapping[str, MetadataColumn]
) -> dict[str, Scalar | Undecodable]:
    """Values of the columns that a folder of the file names, by the column or by its field, as Hive
    writes them: ``lang=en/year=2024/0.parquet``.

    Every folder of the URI counts, so the values depend on the file alone and not on where a source
    begins; of two folders of one name the inner one does.
    """
    folders = [folder.partition("=") for folder in uri.split("/")[:-1] if "=" in folder]
    written = {unquote(name): value for name, _, value in folders}
    return {
        name: _folder_value(f"{key}={written[key]}", written[key], column.type)
        for name, column in columns.items()
        for key in (name, column.field)
        if key in written
    }


def _folder_value(folder: str, written: str, declared: ColumnType) -> Scalar | Undecodable:
    if written == NULL:
        return None
    try:
        text = unquote(written, errors="strict")
        if "\0" in text:
            raise ValueError("a NUL character")
        return from_text(text, declared)
    except ValueError as error:
        return Undecodable(WRONG_TYPE, f"the folder {folder}: {error}")
