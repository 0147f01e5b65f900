"""The sections of a recipe, with their defaults and limits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from embedding_core.recipe import load
from embedding_core.recipe.choosing import SampleSpec
from embedding_core.recipe.chunk import ByStrategy, ChunkOptions
from embedding_core.recipe.endpoints import checked_endpoint
from embedding_core.recipe.explain import explain
from embedding_core.recipe.formats import KNOWN_FORMATS, ByFormat, FormatOptions
from embedding_core.recipe.mapping import conversation, function
from embedding_core.recipe.mapping.conversation import ConversationSpec
from embedding_core.recipe.mapping.field_path import FieldPath
from embedding_core.recipe.mapping.function import MapSpec
from embedding_core.recipe.mapping.template import TextTemplate
from embedding_core.recipe.paths import kind_of, pinned_name, with_absolute_paths
from embedding_core.recipe.section import Section
from embedding_core.records import ColumnType
from embedding_core.store.storage import StorageSpec

IndexKind = Literal["IVF_SQ", "IVF_RQ", "IVF_HNSW_SQ", "IVF_PQ"]
"""How a vector index keeps vectors: a byte or a bit per dimension, a graph of bytes, codes."""

Normalization = Literal["none", "nfc", "nfkc"]
"""Unicode's normal form of a text."""
Whitespace = Literal["keep", "trim", "collapse"]
"""What becomes of the white space of a text."""

RESERVED_COLUMNS = frozenset(
    [
        "chunk_id",
        "file_key",
        "source_uri",
        "doc_id",
        "chunk_index",
        "text",
        "context",
        "text_hash",
        "n_tokens",
        "char_start",
        "char_end",
        "vector",
    ]
)
"""Columns every table has; metadata may not use their names."""


OF_ONE_MODEL = frozenset(
    [
        "revision",
        "adapter",
        "adapter_revision",
        "api",
        "served",
        "endpoints",
        "tokenizer",
        "query_prompt",
        "document_prompt",
    ]
)
"""Fields of a model section that mean nothing for a model of another name."""


class MetadataColumn(Section):
    """Where a metadata column comes from, and what it holds."""

    field: str
    """Name of the field, or a path to it: ``meta.author name``, ``messages[-1].content``. A field
    of that whole name comes first."""
    type: ColumnType
    """A timestamp is ISO 8601 text or a Parquet timestamp, kept in UTC."""

    @field_validator("field")
    @classmethod
    def _is_a_path(cls, field: str) -> str:
        FieldPath.parse(field)
        return field


class SourceSpec(Section):
    """Where the files are and how a record becomes a text."""

    uri: str
    """Folder, file, ``s3://bucket/prefix`` (or ``gs://``, ``az://``),
    ``hf://datasets/owner/name[@revision]``, or an ``https://`` URL of a file or of a list of URLs
    (``.txt``). A relative path is relative to the recipe file; a recipe that is no file on disk has
    absolute paths."""
    include: tuple[str, ...] | None = None
    """Globs under ``uri`` that choose the files; default: every file of a format that is read, by
    the end of its name. Names that begin with ``_`` or ``.`` are read only if a glob does too."""
    exclude: tuple[str, ...] = ()
    """Globs under ``uri`` for files to leave out, and for folders to leave out with all in them."""
    config: str | None = None
    """Read the files of this config of a dataset alone, told by their folder."""
    split: str | None = None
    """Read the files of this split of a dataset alone, told by their names: ``train``."""
    format: str | None = None
    """Name of the format of every file; default: told by each file's content and name."""
    formats: Annotated[dict[str, FormatOptions], ByFormat] = Field(default_factory=dict)
    """Options by format: ``{csv: {delimiter: ";"}}``; each format has its own."""
    id: str | None = None
    """Field that holds a document's id, unique in its file; without it, the position counts."""
    text: str = "text"
    """A field name or path, or a template over fields: ``"{title|untitled}\\n{text}"``."""
    title: str | None = None
    """A field path or a template that is embedded before each chunk of the document and is
    not stored in ``text``; a record without the field has no title."""
    normalize: Normalization = "none"
    """Unicode normal form that texts are brought into; ``none`` keeps them exactly."""
    whitespace: Whitespace = "keep"
    """``trim`` cuts white space off the ends of a text, ``collapse`` also makes of each run within
    it a space, a line end or a blank line."""
    conversation: ConversationSpec | None = None
    """A list of turns that fields are derived from: ``messages``, or a section."""
    map: MapSpec | None = None
    """A function that makes documents of a record: ``package.module:function``, or a section."""
    metadata: dict[str, MetadataColumn] = Field(default_factory=dict)
    """Typed columns to filter searches by: ``{year: int}`` for a field of the column's name, else
    ``{author: {field: "meta.author name", type: string}}``."""
    deduplicate: bool = False
    """Leave out documents whose text another document of the source has (listed in rejects)."""
    sample: SampleSpec | None = None
    """Take some documents of the source, or of each group of them, by chance or the first."""
    limit: int | None = Field(default=None, ge=1)
    """Take this many documents in all, the first by file name and position; files behind them are
    not read."""
    storage: StorageSpec = StorageSpec()
    """How to reach the bucket or the hub, when it is not plain AWS or the public hub."""

    @field_validator("format")
    @classmethod
    def _known_format(cls, name: str | None) -> str | None:
        if name is not None and name not in KNOWN_FORMATS.names():
            raise ValueError(f"{name!r} is unknown; use one of {', '.join(KNOWN_FORMATS.names())}")
        if name is not None:
            KNOWN_FORMATS.get(name)  # a plugin may be broken
        return name

    @field_validator("id")
    @classmethod
    def _id_is_a_path(cls, path: str | None) -> str | None:
        if path is not None:
            FieldPath.parse(path)
        return path

    @field_validator("text", "title")
    @classmethod
    def _is_a_template(cls, template: str | None) -> str | None:
        if template is not None:
            TextTemplate.parse(template)
        return template

    @field_validator(
        "conversation", mode="before", json_schema_input_type=str | ConversationSpec | None
    )
    @classmethod
    def _conversation_written_out(cls, section: Any) -> Any:
        return conversation.written_out(section)

    @field_validator("map", mode="before", json_schema_input_type=str | MapSpec | None)
    @classmethod
    def _map_written_out(cls, section: Any) -> Any:
        return function.written_out(section)

    @field_validator(
        "metadata", mode="before", json_schema_input_type=dict[str, ColumnType | MetadataColumn]
    )
    @classmethod
    def _metadata_written_out(cls, metadata: Any) -> Any:
        if not isinstance(metadata, Mapping):
            return metadata
        return {
            name: {"field": name, "type": value} if isinstance(value, str) else value
            for name, value in metadata.items()
        }

    @field_validator("metadata")
    @classmethod
    def _metadata_names(cls, metadata: dict[str, MetadataColumn]) -> dict[str, MetadataColumn]:
        for name, column in metadata.items():
            way_out = (
                f"name it otherwise: `other: {{field: {column.field!r}, type: {column.type}}}`"
            )
            if name in RESERVED_COLUMNS or name.startswith(("vector__", "_")):
                raise ValueError(f"{name!r} is a column embedlake keeps for itself; {way_out}")
            if not name.isidentifier():
                raise ValueError(
                    f"{name!r} cannot be a column, which has letters, digits and underscores; "
                    f"{way_out}"
                )
        return metadata


class ModelSpec(Section):
    """Which encoder makes the vectors."""

    name: str
    """Hub id (``owner/name``), local checkpoint folder (begins with ``./``, ``/`` or ``~``),
    ``s3://bucket/prefix``, ``package:<python package>``, ``hashing``, or ``http(s)://host:port`` of
    a server. A path that ends with ``latest`` is the newest of the dated folders beside it."""
    revision: str | None = None
    """Branch, tag or commit of a hub model; of a server, the fingerprint that a table recorded."""
    adapter: str | None = None
    """LoRA adapter that is merged into the weights: hub id, local folder or ``s3://bucket/prefix``."""
    adapter_revision: str | None = None
    """Branch, tag or commit of a hub adapter."""
    storage: StorageSpec = StorageSpec()
    """How to reach the bucket, when it is not plain AWS."""
    dtype: Literal["auto", "fp16", "bf16", "fp32", "fp8"] = "auto"
    """Arithmetic of the model; ``auto``: fp16 on CUDA, the faster of bf16 and fp32 on a CPU."""
    dim: int | None = Field(default=None, ge=1)
    """Keep the first ``dim`` values of a vector (Matryoshka models), normalised again."""
    max_tokens: int | None = Field(default=None, ge=8)
    """Longest input, special tokens included; default: what the checkpoint says."""
    allow_unverified: bool = False
    """Run an architecture that embedlake does not test: padded, slower, by transformers alone."""
    api: Literal["openai", "tei"] | None = None
    """What a server speaks; default: what it answers to."""
    served: str | None = None
    """The server's id of the model; default: the only one that it serves."""
    endpoints: tuple[str, ...] = ()
    """URLs of more servers of the same model, which are asked beside ``name``."""
    tokenizer: str | None = None
    """Checkpoint whose tokenizer counts for a server's model, as in ``name``; its weights are not
    needed. ``cautious`` counts without it. Default: what the server's id of the model names, if
    that is here."""
    query_prompt: str | None = None
    """Text before each query to a server; default: that of the checkpoint of ``tokenizer``."""
    document_prompt: str | None = None
    """Text before each document to a server; default as for ``query_prompt``."""
    over_length: Literal["drop", "truncate", "split", "error"] = "drop"
    """A chunk longer than that: leave it out (listed in rejects), cut it, make several, or reject
    its file before anything of it is embedded."""

    @field_validator("name")
    @classmethod
    def _name_without_secrets(cls, name: str) -> str:
        return checked_endpoint(name) if kind_of(name) == "endpoint" else name

    @field_validator("endpoints")
    @classmethod
    def _endpoints_without_secrets(cls, endpoints: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(checked_endpoint, endpoints))

    def pinned(self, revision: str | None) -> Self:
        """The same model by a name that does not move, for a table to remember.

        ``revision`` is the space's: a branch becomes its commit, ``latest`` the folder it stood
        for, a server the one with that fingerprint.
        """
        if revision is None:
            return self
        if kind_of(self.name) in ("path", "s3"):
            return self.model_copy(update={"name": pinned_name(self.name, revision)})
        return self.model_copy(update={"revision": revision})


class LakeSpec(Section):
    """Where the table is."""

    uri: str
    """LanceDB database: a local folder or ``s3://bucket/prefix``."""
    table: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    """Name of the table; ``<table>__files``, ``<table>__rejects`` and ``<table>__feedback`` stand
    beside it."""
    storage: StorageSpec = StorageSpec()
    """How to reach the bucket, when it is not plain AWS."""

    @field_validator("table")
    @classmethod
    def _table_name(cls, table: str) -> str:
        if "__" in table:
            raise ValueError(f"{table!r} holds '__', which the ledger's names use; use one '_'")
        return table


class IndexSpec(Section):
    """When and how well the vectors are indexed."""

    min_rows: int = Field(default=50_000, ge=256)
    """Below this many rows exact search is fast enough and no vector index is built."""
    target_recall: float = Field(default=0.95, gt=0, le=1)
    """recall@10 against exact search that the index must reach on a sample of the table."""
    kind: Literal["auto"] | IndexKind = "auto"
    """Kind of vector index; ``auto`` chooses by number of rows and dimension."""
    full_text: bool = False
    """Keep a full-text index on ``text``, which hybrid search needs."""


class MaintainSpec(Section):
    """How the table is kept fit; changes no row and no vector."""

    small_fragments: int = Field(default=64, ge=2)
    """A run that leaves more small fragments than this in one of its tables maintains them all."""
    keep_hours: float = Field(default=168, ge=1)
    """Versions older than this are removed, unless they are tagged; a reader that stays on one
    version for longer fails."""


class ReleaseSpec(Section):
    """How a model takes the place of another, and what it must show before that."""

    queries: str | None = None
    """Labelled queries (BEIR file formats): JSON lines with ``_id`` and ``text``."""
    qrels: str | None = None
    """Their judgements: TSV with a header: query id, document id, grade."""
    follow: bool = False
    """Embed with the model in service, whatever ``model`` names: ``model`` is then what a new table
    starts with and what the next ``reembed`` builds, and a promoted model needs no other recipe."""
    keep_previous_days: float = Field(default=7, ge=0)
    """Maintenance retires vectors that left service longer ago than this."""
    max_ndcg_drop: float = Field(default=0.01, ge=0)
    """Largest loss of mean nDCG@10 that the release gate lets pass."""
    strict: bool = False
    """Ask for proof: the whole 95 % interval of the difference must be within that loss."""
    min_overlap: float | None = Field(default=None, ge=0, le=1)
    """Share of the old first 10 documents that the new first 10 must hold; default: any."""
    max_latency_ratio: float | None = Field(default=None, gt=0)
    """Longest median search in the new space over that in the old one; default: any."""


class Recipe(Section):
    """One table: its source, its chunks, its model, its lake."""

    name: str = Field(min_length=1, max_length=100)
    """Readable name; a table remembers which recipe made it."""
    source: SourceSpec
    chunk: Annotated[ChunkOptions, ByStrategy] = Field(default_factory=dict, validate_default=True)
    """How documents are cut; default: windows of tokens."""
    model: ModelSpec
    lake: LakeSpec
    index: IndexSpec = IndexSpec()
    maintain: MaintainSpec = MaintainSpec()
    release: ReleaseSpec = ReleaseSpec()
    max_rejected_share: float = Field(default=0.01, ge=0, le=1)
    """Rejected records per record read that a run may have and still end with exit code 0.
    A whole file that is rejected always counts as too much."""
    max_removed_share: float = Field(default=0.3, ge=0, le=1)
    """A run stops before any change when more than this share of the table's files have left the
    source, unless removals are allowed for that run: a broken mount must not empty a table."""
    reuse: Literal["file", "table"] = "file"
    """Where a chunk's text is looked for before it is embedded: among the rows that its file or one
    of the same content had, or among all of the table, by an index on ``text_hash``."""
    keep_removed: bool = False
    """Keep the rows of files that leave the source."""
    keep_rejected_texts: bool = False
    """Put the texts of chunks that are dropped, cut or without a vector into the rejects."""

    @model_validator(mode="after")
    def _columns_differ(self) -> Self:
        for name in self.chunk.columns:
            if name in self.source.metadata:
                raise ValueError(
                    f"source.metadata.{name} and chunk.strategy {self.chunk.strategy} both make a "
                    f"column {name!r}; name the metadata column otherwise"
                )
        return self

    @classmethod
    def load(cls, recipe: str | Path | Mapping[str, Any], base: Path | None = None) -> Recipe:
        """Read a recipe from a YAML file, an ``s3://`` URI, a mapping, or JSON text (``{…}``).

        Relative paths in a file are relative to that file, in the others to ``base``; without one
        they are refused, since a working directory is another in every process. Raises
        ``UsageError`` with every problem found and the nearest known name of a wrong key.
        """
        return _validated(load.read(recipe, base))

    def with_model(self, model: str | Mapping[str, Any] | None, base: Path | None = None) -> Recipe:
        """This recipe with another model.

        A name takes the place of the recipe's, its revision, its adapter and what only a server
        has; the rest of the model section stays. A mapping is a whole model section. None changes
        nothing. Paths are relative to ``base``; without one they are absolute. Raises
        ``UsageError`` for a bad section.
        """
        if model is None:
            return self
        if isinstance(model, str):
            model = self.model.model_dump(exclude=set(OF_ONE_MODEL)) | {"name": model}
        content = self.model_dump(mode="json") | {"model": dict(model)}
        return _validated(load.Written(content, base, "the model"))


def _validated(written: load.Written) -> Recipe:
    try:
        recipe = Recipe.model_validate(written.content)
    except ValidationError as error:
        raise explain(error, written.origin, Recipe, action="schema") from error
    return with_absolute_paths(recipe, written.base, written.origin)
