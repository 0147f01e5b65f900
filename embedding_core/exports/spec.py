"""What somebody asks of an export, apart from where it goes: its format, columns, rows, shards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator

from embedding_core.errors import UsageError
from embedding_core.exports.exporter import KNOWN_EXPORTERS
from embedding_core.recipe.section import Section


class ExportSpec(Section):
    """Decides, with a version of a table, every byte of an export."""

    to: str
    """Name of the format: ``parquet``, ``jsonl``, ``safetensors``, ``npy`` or ``arrow``."""
    columns: tuple[str, ...] | None = None
    """Columns to write, in this order; default: all but vectors that are not in service."""
    where: str | None = None
    """SQL filter over the table's columns; default: every row."""
    split_by: str | None = None
    """Column whose values get a folder each; default: one folder."""
    shard_rows: int = Field(default=100_000, ge=1)
    """Rows of a shard at most."""
    dtype: Literal["float16", "float32"] | None = None
    """Type of the numbers of vectors; default: the table's."""
    as_list: bool = False
    """Write vectors as lists of any length; default: of fixed size."""
    rename: dict[str, str] = Field(default_factory=dict)
    """Names that columns are written under, by their names in the table."""

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> ExportSpec:
        """Raises ``UsageError``, naming the option, for a value that it cannot have."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise UsageError(
                "; ".join(
                    f"{'.'.join(map(str, problem['loc']))} is {problem['input']!r}: "
                    f"{problem['msg'].removeprefix('Value error, ')}"
                    for problem in error.errors()
                )
            ) from error

    @field_validator("to")
    @classmethod
    def _known_format(cls, name: str) -> str:
        if name not in KNOWN_EXPORTERS.names():
            raise ValueError(f"no such format; use {', '.join(KNOWN_EXPORTERS.names())}")
        return name

    @field_validator("where")
    @classmethod
    def _some_filter(cls, where: str | None) -> str | None:
        if where is not None and not where.strip():
            raise ValueError("the filter is empty; leave it out to take every row")
        return where

    @field_validator("columns")
    @classmethod
    def _some_columns(cls, columns: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if columns is not None and not (columns and all(columns)):
            raise ValueError("a column has no name; name at least a column")
        return columns

    @field_validator("rename")
    @classmethod
    def _new_names(cls, rename: dict[str, str]) -> dict[str, str]:
        if not all(rename.values()):
            raise ValueError("a column has no new name; write old=new")
        return rename
