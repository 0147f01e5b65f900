"""Metadata of fragments that were written and not committed, as it was saved in the lake.

Whoever may write to the lake may have changed it. Lance believes it: a path in it may lead to the
files of another table, which its writer may not read and the process that commits may.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

FieldNumber = Annotated[int, Field(ge=-1, lt=2**31)]
Count = Annotated[int, Field(ge=0, lt=2**63)]
OwnName = Annotated[str, Field(pattern=r"^[0-9A-Za-z_-]+\.lance$", max_length=255)]
"""The name of a file in the table's own ``data`` folder."""


class _Written(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _DataFile(_Written):
    path: OwnName
    fields: list[FieldNumber]
    column_indices: list[FieldNumber]
    file_major_version: FieldNumber
    file_minor_version: FieldNumber
    file_size_bytes: Count
    base_id: None = None


class _Fragment(_Written):
    """A fragment as ``write_fragments`` leaves it: nothing is deleted, changed or versioned."""

    id: Count
    files: list[_DataFile] = Field(min_length=1)
    physical_rows: Count
    overlays: list[None] = Field(max_length=0)
    deletion_file: None
    row_id_meta: None
    created_at_version_meta: None
    last_updated_at_version_meta: None


def are_own(fragments: Iterable[str]) -> bool:
    """Whether these JSON texts are metadata of fragments of the table's own data files alone."""
    try:
        for fragment in fragments:
            _Fragment.model_validate_json(fragment)
    except ValidationError:
        return False
    return True
