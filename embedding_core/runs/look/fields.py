"""Fields of a table that points may be coloured by, and the groups that their values make."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa

from embedding_core.errors import UsageError
from embedding_core.lake import schema
from embedding_core.lake.snapshot import Snapshot
from embedding_core.plurals import counted
from embedding_core.records.scalars import in_utc

HIDDEN = frozenset(
    {"chunk_id", "file_key", "text", "context", "text_hash", "char_start", "char_end"}
)
"""Columns of texts, digests and offsets."""
VALUE_SHOWN = 80
"""Characters of a value; values that begin with the same ones count as equal."""
MOST_GROUPS = 10
"""Values that have a colour each; the rest are one group."""
BINS = 6
"""Groups of numbers, of about the same size."""
NO_VALUE = "(no value)"


def fields_of(snapshot: Snapshot) -> list[str]:
    """Columns with a value per row: the recipe's metadata, then what embedlake itself knows."""
    metadata = set(schema.metadata_names(snapshot.schema))
    names = [
        field.name
        for field in snapshot.schema
        if field.name not in HIDDEN
        and not schema.is_vector_column(field.name)
        and _has_plain_values(field.type)
    ]
    return sorted(names, key=lambda name: name not in metadata)


def checked_field(snapshot: Snapshot, name: str) -> str:
    """The field itself. Raises ``UsageError`` that names the fields there are."""
    names = fields_of(snapshot)
    if name not in names:
        raise UsageError(
            f"there is no field {name!r} to colour by; the table has {', '.join(names)}"
        )
    return name


def _has_plain_values(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_timestamp(kind)
    )


@dataclass(frozen=True, slots=True)
class Grouped:
    """The values of a field in groups."""

    field: str
    labels: tuple[str, ...]
    numbers: tuple[int, ...]
    """Per row its group's position among the labels."""
    is_ordered: bool
    """Groups of numbers, from small to large; those without a value come last."""
    n_values: int
    """Different values."""
    n_named: int
    """The first so many groups have values; those behind them are all others, and no value."""


def grouped(field: str, values: Sequence[Any]) -> Grouped:
    """Numbers and dates in six groups of about the same size; of other values the ten that occur
    most, and the rest together. NaN and infinite numbers count as no value."""
    values = [None if isinstance(v, float) and not math.isfinite(v) else v for v in values]
    present = [value for value in values if value is not None]
    n_values = len(set(present))
    if n_values > MOST_GROUPS and all(map(_is_number, present)):
        return _binned(field, values, n_values)
    counts = Counter(shown(value) for value in present)
    common = [name for name, _ in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))]
    kept, rest = common[:MOST_GROUPS], common[MOST_GROUPS:]
    labels = [*kept, *([f"({counted(len(rest), 'other value')})"] if rest else [])]
    positions = {name: min(rank, len(kept)) for rank, name in enumerate(common)}
    if len(present) < len(values):
        labels.append(NO_VALUE)
    numbers = tuple(
        len(labels) - 1 if value is None else positions[shown(value)] for value in values
    )
    return Grouped(field, tuple(labels), numbers, False, n_values, len(kept))


def _binned(field: str, values: Sequence[Any], n_values: int) -> Grouped:
    measured = np.array([number(value) for value in values])
    finite = np.isfinite(measured)
    edges = np.unique(np.quantile(measured[finite], np.linspace(0, 1, BINS + 1), method="nearest"))
    bins = np.clip(np.searchsorted(edges, measured, side="right") - 1, 0, len(edges) - 2)
    in_bins = {
        int(bin_): [values[int(row)] for row in np.flatnonzero(finite & (bins == bin_))]
        for bin_ in np.unique(bins[finite])
    }
    labels = [
        f"{_named(min(inside, key=number))} to {_named(max(inside, key=number))}"
        for inside in in_bins.values()
    ]
    positions = {bin_: position for position, bin_ in enumerate(in_bins)}
    if not finite.all():
        labels.append(NO_VALUE)
    numbers = tuple(
        positions[int(bin_)] if is_finite else len(labels) - 1
        for bin_, is_finite in zip(bins, finite, strict=True)
    )
    return Grouped(field, tuple(labels), numbers, True, n_values, len(in_bins))


def number(value: Any) -> float:
    """A number or a date as a number, in seconds; NaN for no value. A date without a zone is in
    UTC."""
    if value is None:
        return float("nan")
    return in_utc(value).timestamp() if isinstance(value, datetime) else float(value)


def shown(value: Any) -> str:
    """A value in words."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.isoformat(timespec="minutes")
    return f"{value:g}" if isinstance(value, float) else str(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | datetime) and not isinstance(value, bool)


def _named(value: Any) -> str:
    if isinstance(value, datetime):
        return in_utc(value).date().isoformat()
    if value == int(value):
        rounded = int(value)
        return f"{rounded}" if abs(rounded) < 10_000 else f"{rounded:,}"  # a year has no comma
    return f"{value:.4g}"
