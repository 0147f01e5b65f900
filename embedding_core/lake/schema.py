"""The columns of a table, and the metadata that says what its vectors mean.

The space's description lives in the vector field's own metadata, so it follows the column through
renames; the recipe's name lives in the table's schema metadata.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from typing import Any

import pyarrow as pa

from embedding_core.errors import LakeError, words
from embedding_core.identity import SHOWN_DIGITS, space_id
from embedding_core.lake.embedding_function import METADATA_KEY, function_metadata
from embedding_core.recipe import ModelSpec, Recipe
from embedding_core.records import ColumnType, Space, StageSeconds
from embedding_core.sealed import sealed, unsealed
from embedding_core.store.untrusted.json_text import read_json

VECTOR = "vector"
"""The column of the space in service."""
HIDDEN_PREFIX = "vector__"
"""Columns of other spaces: ``vector__`` and the first digits of their ``space_id``."""
FULL_TEXT_INDEX = "text_idx"
"""Name of the full-text index on ``text``."""
SPACE_KEY = b"embedlake:space"
ORIGIN_KEY = b"embedlake:origin"
"""Metadata of a vector field, beside its space; see ``Origin``."""
RECIPE_KEY = b"embedlake:recipe"
CUTTER_KEY = b"embedlake:cutter"
"""Schema metadata: what the rows were cut with; see ``Cutter``."""
COLUMNS_KEY = b"embedlake:metadata"
"""Schema metadata: JSON list of the metadata columns that the recipe declared."""
NAME_DIGITS = 8
"""Digits of the ``space_id`` in the name of a column."""

_EXTENSION_NAME, _EXTENSION_METADATA = b"ARROW:extension:name", b"ARROW:extension:metadata"

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
                "duplicates",
                "left_out",
            )
        ],
        pa.field("choice", pa.string(), nullable=False),
        pa.field("seconds", pa.float64(), nullable=False),
        *[
            pa.field(f"{stage.name}_seconds", pa.float64(), nullable=False)
            for stage in fields(StageSeconds)
        ],
        pa.field("cost", pa.float64()),
        pa.field("run_id", pa.string(), nullable=False),
        pa.field("committed_at", pa.timestamp("us", tz="UTC"), nullable=False),
    ]
)
"""A row per file version; ``chunks = embedded + reused + dropped + failed`` in each."""

CHECKSUM = "checksum"
"""The last column of the ledger and of the rejects; null in lines that were written before there
was one."""


def with_checksum(columns: pa.Schema) -> pa.Schema:
    """The columns, and one for the checksum of their values; see ``lake.disk.checksums``."""
    return columns.append(pa.field(CHECKSUM, pa.string()))


REJECT_FIELDS = pa.schema(
    [
        pa.field("source_uri", pa.string(), nullable=False),
        pa.field("doc_id", pa.string()),
        pa.field("position", pa.int64()),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
        pa.field("chunk_index", pa.int32()),
        pa.field("n_tokens", pa.int64()),
        pa.field("text", pa.string()),
    ]
)
"""The fields of a ``Reject``."""

STAGED_REJECTS = with_checksum(REJECT_FIELDS)

REJECTS_SCHEMA = pa.schema(
    [
        *REJECT_FIELDS,
        pa.field("run_id", pa.string(), nullable=False),
        pa.field("rejected_at", pa.timestamp("us", tz="UTC"), nullable=False),
    ]
)
"""A row per thing left out of the newest version of each file."""

FIXED_FIELDS = (
    pa.field("chunk_id", pa.string(), nullable=False),
    pa.field("file_key", pa.string(), nullable=False),
    pa.field("source_uri", pa.string(), nullable=False),
    pa.field("doc_id", pa.string(), nullable=False),
    pa.field("chunk_index", pa.int32(), nullable=False),
    pa.field("text", pa.string(), nullable=False),
    pa.field("context", pa.string()),
    pa.field("text_hash", pa.string(), nullable=False),
    pa.field("n_tokens", pa.int32(), nullable=False),
    pa.field("char_start", pa.int32(), nullable=False),
    pa.field("char_end", pa.int32(), nullable=False),
)
"""Columns that every table has beside its metadata columns and its vectors."""


def metadata_fields(recipe: Recipe) -> list[pa.Field]:
    """The recipe's metadata columns, in its order, and those of its chunk strategy."""
    types = {name: column.type for name, column in recipe.source.metadata.items()}
    columns = (types | dict(recipe.chunk.columns)).items()
    return [pa.field(name, COLUMN_TYPES[kind]) for name, kind in columns]


def metadata_names(arrow_schema: pa.Schema) -> list[str]:
    """The metadata columns that the recipe gave a table; others were added by hand."""
    with metadata_read(COLUMNS_KEY):
        names = read_json((arrow_schema.metadata or {}).get(COLUMNS_KEY, b"[]"))
        return [str(name) for name in names]


def row_schema(recipe: Recipe) -> pa.Schema:
    """Columns of a staged row: everything but the vector."""
    return pa.schema([*FIXED_FIELDS, *metadata_fields(recipe)])


@dataclass(frozen=True, slots=True)
class Cutter:
    """The tokenizer that chunk boundaries come from, whatever model serves."""

    model: Mapping[str, Any]
    """Fields of the ``ModelSpec`` whose tokenizer it is."""
    tokenizer: str
    """Its digest, as in a space."""
    max_tokens: int
    """Longest chunk, special tokens included."""
    prompt: str
    """Document prompt that counts as part of every chunk."""

    @classmethod
    def of(cls, arrow_schema: pa.Schema) -> Cutter | None:
        """What the table's schema says; None for a table that does not say."""
        stored = (arrow_schema.metadata or {}).get(CUTTER_KEY)
        if not stored:
            return None
        with metadata_read(CUTTER_KEY):
            cutter = cls(**unsealed(read_json(stored)))
            ModelSpec(**cutter.model)  # raises for what is no model
            return cutter


def table_schema(recipe: Recipe, space: Space, cutter: Cutter) -> pa.Schema:
    """The table's schema for a recipe: the space described in the vector field; in the schema's
    metadata how LanceDB makes vectors of words, and what cuts the rows."""
    columns = row_schema(recipe).append(vector_field(space))
    names = [field.name for field in metadata_fields(recipe)]
    return columns.with_metadata(
        {
            RECIPE_KEY: recipe.name,
            COLUMNS_KEY: json.dumps(names),
            **described(recipe, space, cutter),
        }
    )


def described(recipe: Recipe, space: Space, cutter: Cutter) -> dict[bytes, bytes]:
    """Schema metadata naming the models. Refreshed each run: a recipe may rename a model."""
    function = function_metadata(recipe.model, space, "text", VECTOR)
    return {METADATA_KEY: function, CUTTER_KEY: json.dumps(sealed(asdict(cutter))).encode()}


def is_vector_column(name: str) -> bool:
    """Whether a column holds vectors, in service or hidden."""
    return name == VECTOR or name.startswith(HIDDEN_PREFIX)


def is_hidden(field: pa.Field) -> bool:
    """Whether embedlake made a column for a space that is not in service."""
    return field.name.startswith(HIDDEN_PREFIX) and SPACE_KEY in (field.metadata or {})


def vector_field(space: Space) -> pa.Field:
    """The vector column: float16 for spaces computed in half precision, else float32.

    float16 keeps 11 bits, so each value moves by at most 2⁻¹¹ of itself and a cosine of unit
    vectors by at most 4.9e-4 (Cauchy-Schwarz); what it does in practice is in docs/lab-log.md.
    """
    value = pa.float16() if space.dtype_class == "half" else pa.float32()
    description = json.dumps({"space_id": space_id(space), **asdict(space)})
    return pa.field(VECTOR, pa.list_(value, space.dim), metadata={SPACE_KEY: description})


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a vector column comes from and when it served; follows it through renames.

    The column that a table was made with has no origin until it leaves service.
    """

    model: Mapping[str, Any] | None = None
    """Fields of the ``ModelSpec`` that makes its vectors."""
    made_at: str | None = None
    """ISO 8601, UTC."""
    run_id: str | None = None
    """The run that added it."""
    served_until: str | None = None
    """When it left service, ISO 8601, UTC; None if it never served or serves now."""
    complete_below: int | None = 0
    """Fragments with a lower id have a vector in every row. None: every fragment that has data for
    the column does, because all rows came while it was in service."""

    @classmethod
    def of(cls, field: pa.Field) -> Origin:
        """What the field's metadata says."""
        stored = (field.metadata or {}).get(ORIGIN_KEY)
        if not stored:
            return cls(complete_below=None)
        with metadata_read(ORIGIN_KEY):
            return cls(**unsealed(read_json(stored)))

    def on(self, field: pa.Field) -> pa.Field:
        """The field with this in its metadata."""
        metadata = {**(field.metadata or {}), ORIGIN_KEY: json.dumps(sealed(asdict(self))).encode()}
        return field.with_metadata(metadata)


def hidden_name(identifier: str) -> str:
    """Name of the column of a space that is not in service."""
    return f"{HIDDEN_PREFIX}{identifier[:NAME_DIGITS]}"


def hidden(field: pa.Field, name: str) -> pa.Field:
    """A vector field as a column that is not in service has it: LanceDB does not search it.

    Its Python client counts plain fixed-size lists alone, so with ``arrow.fixed_shape_tensor`` on
    all hidden columns ``table.search(v)`` needs no column name. Lance stores both alike.
    """
    kind = list_type(field)
    # Lance compares the text of the shape: no space in it.
    shape = json.dumps({"shape": [kind.list_size]}, separators=(",", ":"))
    extension = {_EXTENSION_NAME: b"arrow.fixed_shape_tensor", _EXTENSION_METADATA: shape.encode()}
    return pa.field(name, kind, metadata={**(field.metadata or {}), **extension})


def as_served(field: pa.Field) -> pa.Field:
    """A vector field as a column in service has it: a plain fixed-size list."""
    extension = (_EXTENSION_NAME, _EXTENSION_METADATA)
    kept = {key: value for key, value in (field.metadata or {}).items() if key not in extension}
    return pa.field(VECTOR, list_type(field), metadata=kept)


def list_type(field: pa.Field) -> pa.FixedSizeListType:
    """Type of a vector column's values, in service or not."""
    kind = field.type
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def index_name(field: pa.Field) -> str:
    """Name of a vector column's index: ``space_`` and the first digits of its ``space_id``."""
    return f"space_{space_of(field)[0][:SHOWN_DIGITS]}"


def space_of(field: pa.Field) -> tuple[str, Space]:
    """The ``space_id`` and space a vector field was written with.

    Raises ``LakeError`` for a column that embedlake did not make, and for a description that is
    not what was written: the ``space_id`` is the digest of the rest.
    """
    description = (field.metadata or {}).get(SPACE_KEY)
    if description is None:
        raise LakeError(
            f"column {field.name!r} does not say which model made it; this table was not made by "
            "embedlake; use another lake.table"
        )
    with metadata_read(SPACE_KEY):
        fields = read_json(description)
        identifier: str = fields.pop("space_id")
        space = Space(**fields | {"identity": tuple(fields["identity"])})
        if space_id(space) != identifier:
            raise ValueError(f"it is not what space_id {identifier[:SHOWN_DIGITS]} stands for")
    return identifier, space


@contextmanager
def metadata_read(key: bytes) -> Iterator[None]:
    """Raise ``LakeError`` when metadata of a table does not say what embedlake wrote."""
    try:
        yield
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise LakeError(
            f"the table's metadata {key.decode()!r} is damaged ({words(error)}); put the table's "
            "newest manifest (in _versions) back from a copy, or move it away: the table is then "
            "as it was a version before, and the next run does the rest",
            action="embed",
        ) from error


def difference(first: Space, second: Space) -> str:
    """What two spaces differ in, for a person: numbers by their values, digests by their names."""
    names = [
        field.name
        for field in fields(Space)
        if field.name not in ("model", "revision")
        and getattr(first, field.name) != getattr(second, field.name)
    ]
    return ", ".join(
        f"{name} ({getattr(first, name)} and {getattr(second, name)})"
        if name in ("dim", "max_tokens", "pooling", "dtype_class")
        else name
        for name in names
    )
