"""The value that a sample is taken per: of a metadata column, a field or a folder."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

from embedding_core.errors import RejectedInput
from embedding_core.recipe import MetadataColumn, SourceSpec
from embedding_core.recipe.mapping.field_path import FieldPath
from embedding_core.records import Scalar
from embedding_core.sources.formats.format import Undecodable
from embedding_core.sources.mapping.lookup import ABSENT, Lookup, lookup
from embedding_core.sources.mapping.metadata import folder_values, whole


@dataclass(frozen=True, slots=True)
class Grouping:
    """The field that documents of one file are grouped by. It never makes a record a reject."""

    name: str
    """A metadata column, else a path into the record, else the name of a folder."""
    folder: str | None
    """The value that a folder of the file gives."""
    find: Lookup

    @classmethod
    def of(cls, spec: SourceSpec, source_uri: str) -> Grouping | None:
        """The grouping of a recipe; None without one."""
        if spec.sample is None or spec.sample.per is None:
            return None
        name = spec.sample.per
        column = {name: MetadataColumn(field=name, type="string")}
        folder = _text(folder_values(source_uri, column).get(name))
        return cls(name, folder, lookup(FieldPath.parse(name)))

    def value(self, fields: Mapping[str, object], metadata: Mapping[str, Scalar]) -> str | None:
        """The group of a document as text; None for a missing, null or unreadable value."""
        if self.name in metadata:
            return _text(metadata[self.name])
        try:
            raw = self.find(fields)
        except RejectedInput:
            return None
        return self.folder if raw is ABSENT else _text(raw)


def _text(value: object) -> str | None:
    if value is None or isinstance(value, (RejectedInput, Undecodable)):
        return None
    if isinstance(value, str):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    number = whole(value)
    if number is not None:
        return str(number)
    if isinstance(value, (bool, list, dict)):
        return json.dumps(value, default=str, sort_keys=True)
    return str(value)
