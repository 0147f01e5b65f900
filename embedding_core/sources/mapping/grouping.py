"""The value that a sample is taken per: of a metadata column, a field or a folder."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from uuid import UUID

from embedding_core.errors import RejectedInput
from embedding_core.recipe import MetadataColumn, SourceSpec
from embedding_core.recipe.mapping.field_path import FieldPath
from embedding_core.records import Scalar
from embedding_core.sources.mapping.lookup import ABSENT, lookup
from embedding_core.sources.mapping.metadata import folder_values, whole

WRITTEN_ALIKE = (str, bytes, float, Decimal, UUID, date, time, timedelta)
"""Types of the values of files whose text is the same in every process."""


def group_reader(
    spec: SourceSpec, source_uri: str
) -> Callable[[Mapping[str, object], Mapping[str, Scalar]], str | None] | None:
    """The function that gives a document's group, of its fields and its metadata; None where the
    recipe makes no groups.

    A metadata column of the name comes first, then a path into the fields, then a folder. A group
    is None for a missing, null or unreadable value: it never makes a record a reject.
    """
    if spec.sample is None or spec.sample.per is None:
        return None
    name = spec.sample.per
    column = {name: MetadataColumn(field=name, type="string")}
    of_folder = _text(folder_values(source_uri, column).get(name))
    find = lookup(FieldPath.parse(name))

    def read(fields: Mapping[str, object], metadata: Mapping[str, Scalar]) -> str | None:
        if name in metadata:
            return _text(metadata[name])
        try:
            value = find(fields)
        except RejectedInput:
            return None
        return of_folder if value is ABSENT else _text(value)

    return read


def _text(value: object) -> str | None:
    """A value as text, the same in every process; None for what a file cannot hold, as a map may
    give it: a set, a number with thousands of digits, a list within itself."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    try:
        number = whole(value)
        if number is not None:
            return str(number)
        if isinstance(value, (bool, list, tuple, dict)):
            return json.dumps(value, default=_written, sort_keys=True)
        return _written(value)
    except (TypeError, ValueError, RecursionError):
        return None


def _written(value: object) -> str:
    if isinstance(value, WRITTEN_ALIKE):
        return str(value)
    raise TypeError(type(value).__name__)
