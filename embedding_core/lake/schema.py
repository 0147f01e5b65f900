"""What a table looks like: columns, and the metadata that says what its vectors mean.

The space's description lives in the vector field's own metadata, so it follows the column through
renames; the recipe's name lives in the table's schema metadata.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict

import pyarrow as pa

from embedding_core.errors import LakeError
from embedding_core.identity import space_id
from embedding_core.recipe import ColumnType, Recipe
from embedding_core.records import Space

VECTOR = "vector"
"""The column of the space in service."""
SPACE_KEY = b"embedlake:space"
RECIPE_KEY = b"embedlake:recipe"

COLUMN_TYPES: Mapping[ColumnType, pa.DataType] = {
    "string": pa.string(),
    "int": pa.int64(),
    "float": pa.float64(),
    "bool": pa.bool_(),
    "timestamp": pa.timestamp("us", tz="UTC"),
}

LEDGER_SCHEMA = pa.schema(
    [
        pa.field("file_key", pa.string(), nullable=False),
        pa.field("source_uri", pa.string(), nullable=False),
        pa.field("fingerprint", pa.string(), nullable=False),
        pa.field("rows_id", pa.string(), nullable=False),
        pa.field("space_id", pa.string(), nullable=False),
        *[
            pa.field(name, pa.int64(), nullable=False)
            for name in (
                "documents",
                "rejected",
                "chunks",
                "embedded",
                "reused",
                "dropped",
                "failed",
                "tokens",
            )
        ],
        pa.field("seconds", pa.float64(), nullable=False),
        pa.field("run_id", pa.string(), nullable=False),
        pa.field("committed_at", pa.timestamp("us", tz="UTC"), nullable=False),
    ]
)
"""A row per file version; ``chunks = embedded + reused + dropped + failed`` in each."""

REJECTS_SCHEMA = pa.schema(
    [
        pa.field("source_uri", pa.string(), nullable=False),
        pa.field("doc_id", pa.string()),
        pa.field("position", pa.int64()),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
        pa.field("run_id", pa.string(), nullable=False),
        pa.field("rejected_at", pa.timestamp("us", tz="UTC"), nullable=False),
    ]
)
"""A row per thing left out of the newest version of each file."""


def row_schema(recipe: Recipe) -> pa.Schema:
    """Columns of a staged row: everything but the vector."""
    metadata_columns = [
        pa.field(name, COLUMN_TYPES[kind]) for name, kind in recipe.source.metadata.items()
    ]
    return pa.schema(
        [
            pa.field("chunk_id", pa.string(), nullable=False),
            pa.field("file_key", pa.string(), nullable=False),
            pa.field("source_uri", pa.string(), nullable=False),
            pa.field("doc_id", pa.string(), nullable=False),
            pa.field("chunk_index", pa.int32(), nullable=False),
            pa.field("text", pa.string(), nullable=False),
            pa.field("text_hash", pa.string(), nullable=False),
            pa.field("n_tokens", pa.int32(), nullable=False),
            pa.field("char_start", pa.int32(), nullable=False),
            pa.field("char_end", pa.int32(), nullable=False),
            *metadata_columns,
        ]
    )


def table_schema(recipe: Recipe, space: Space) -> pa.Schema:
    """The table's schema for a recipe, with the space described in the vector field."""
    return row_schema(recipe).append(vector_field(space)).with_metadata({RECIPE_KEY: recipe.name})


def vector_field(space: Space) -> pa.Field:
    """The vector column: float16 for spaces computed in half precision, else float32.

    float16 keeps 11 bits, so each value moves by at most 2⁻¹¹ of itself and a cosine of unit
    vectors by at most 4.9e-4 (Cauchy-Schwarz); what it does in practice is in docs/lab-log.md.
    """
    value = pa.float16() if space.dtype_class == "half" else pa.float32()
    description = json.dumps({"space_id": space_id(space), **asdict(space)})
    return pa.field(VECTOR, pa.list_(value, space.dim), metadata={SPACE_KEY: description})


def space_of(field: pa.Field) -> tuple[str, Space]:
    """The ``space_id`` and space a vector field was written with.

    Raises ``LakeError`` for a column that embedlake did not make.
    """
    description = (field.metadata or {}).get(SPACE_KEY)
    if description is None:
        raise LakeError(
            f"column {field.name!r} does not say which model made it; this table was not made by "
            "embedlake; use another lake.table"
        )
    fields = json.loads(description)
    identifier: str = fields.pop("space_id")
    return identifier, Space(**fields | {"weights": tuple(fields["weights"])})
