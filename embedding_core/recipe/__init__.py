"""The recipe: everything that changes rows or vectors, nothing that only changes speed.

A recipe is one YAML file. It is validated once, here, then passed on frozen. ``Resources`` holds
the rest: what only changes speed, never part of any digest.
"""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from embedding_core.errors import UsageError
from embedding_core.records import ColumnType
from embedding_core.store import storage
from embedding_core.store.storage import StorageSpec

IndexKind = Literal["IVF_SQ", "IVF_RQ", "IVF_HNSW_SQ", "IVF_PQ"]
"""How a vector index keeps vectors: a byte or a bit per dimension, a graph of bytes, codes."""

RESERVED_COLUMNS = frozenset(
    [
        "chunk_id",
        "file_key",
        "source_uri",
        "doc_id",
        "chunk_index",
        "text",
        "text_hash",
        "n_tokens",
        "char_start",
        "char_end",
        "vector",
    ]
)
"""Columns every table has; metadata may not use their names."""

_PATH_STARTS = (".", "/", "~")
"""What tells a model's path from other names."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class MetadataColumn(_Part):
    """Where a metadata column comes from, and what it holds."""

    field: str
    """Name of the field, or a path of names into objects, with dots between: ``meta.author name``.
    A field of that whole name comes first."""
    type: ColumnType
    """A timestamp is ISO 8601 text or a Parquet timestamp, kept in UTC."""


class SourceSpec(_Part):
    """Where the files are and how a record becomes a text."""

    uri: str
    """Folder, file or ``s3://bucket/prefix``. A relative path is relative to the recipe file; a
    recipe that is no file on disk has absolute paths."""
    include: tuple[str, ...] | None = None
    """Globs under ``uri`` that choose the files; default: every file of a format that is read, by
    the end of its name. Names that begin with ``_`` or ``.`` only where a glob writes that."""
    exclude: tuple[str, ...] = ()
    """Globs under ``uri`` of files, and of folders with all in them, that are left out."""
    id: str | None = None
    """Field that holds a document's id, unique in its file; without it, the position counts."""
    text: str = "text"
    """A field name, or a template over fields: ``"{title}\\n{text}"``."""
    metadata: dict[str, MetadataColumn] = Field(default_factory=dict)
    """Typed columns to filter searches by: ``{year: int}`` for a field of the column's name, else
    ``{author: {field: "meta.author name", type: string}}``."""
    storage: StorageSpec = StorageSpec()
    """How to reach the bucket, when it is not plain AWS."""

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


class TokenWindows(_Part):
    """Windows of tokens. Lengths are in tokens the model sees, special tokens included."""

    strategy: Literal["tokens"] = "tokens"
    """``tokens``: windows of at most ``max_tokens``."""
    max_tokens: int | None = Field(default=None, ge=8)
    """Longest chunk; default: 512, or what the model takes if that is less."""
    overlap: int = Field(default=0, ge=0)
    """Tokens a chunk repeats of the one before it."""
    tokenizer: str | None = None
    """Model whose tokenizer counts; default: that of the model the table was made with. It stays
    with the rows when another model is put in service; another one cuts every file again."""
    min_tokens: int = Field(default=1, ge=1)
    """A shorter last chunk is grown backwards to this length, so no text is lost."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.max_tokens is not None and self.overlap * 2 > self.max_tokens:
            raise ValueError(
                f"overlap {self.overlap} is more than half of max_tokens {self.max_tokens}; "
                f"use at most {self.max_tokens // 2}"
            )
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise ValueError(
                f"min_tokens {self.min_tokens} is above max_tokens {self.max_tokens}; lower it"
            )
        return self


class WholeDocuments(_Part):
    """One chunk per document."""

    strategy: Literal["none"]
    """``none``: one chunk per document."""
    tokenizer: str | None = None
    """Model whose tokenizer counts; see the strategy ``tokens``."""


def _strategy(chunk: object) -> object:
    """The strategy a chunk section names; ``tokens`` when it names none."""
    if isinstance(chunk, Mapping):
        return chunk.get("strategy", "tokens")
    return getattr(chunk, "strategy", "tokens")


ChunkSpec = Annotated[
    Annotated[TokenWindows, Tag("tokens")] | Annotated[WholeDocuments, Tag("none")],
    Discriminator(_strategy),
]
"""How a document is cut: each strategy has options of its own, and takes no others."""


class ModelSpec(_Part):
    """Which encoder makes the vectors."""

    name: str
    """Hub id (``owner/name``), local checkpoint folder (begins with ``./``, ``/`` or ``~``),
    ``s3://bucket/prefix``, ``package:<python package>`` or ``hashing``. A path that ends
    with ``latest`` is the newest of the dated folders beside it."""
    revision: str | None = None
    """Branch, tag or commit of a hub model."""
    adapter: str | None = None
    """LoRA adapter that is merged into the weights: hub id, local folder or ``s3://bucket/prefix``."""
    adapter_revision: str | None = None
    """Branch, tag or commit of a hub adapter."""
    storage: StorageSpec = StorageSpec()
    """How to reach the bucket, when it is not plain AWS."""
    dtype: Literal["auto", "fp16", "bf16", "fp32", "fp8"] = "auto"
    """Arithmetic of the model; ``auto``: fp16 on CUDA, the faster of bf16 and fp32 on a CPU."""
    dim: int | None = Field(default=None, ge=1)
    """Keep the first ``dim`` values of a vector (Matryoshka models), then normalise."""
    max_tokens: int | None = Field(default=None, ge=8)
    """Longest input, special tokens included; default: what the checkpoint says."""
    allow_unverified: bool = False
    """Run an architecture that embedlake does not test: padded, slower, by transformers alone."""
    over_length: Literal["drop", "truncate", "split"] = "drop"
    """A chunk longer than that: leave it out (listed in rejects), cut it, or make several."""

    def pinned(self, revision: str | None) -> Self:
        """The same model by a name that does not move, for a table to remember.

        ``revision`` is the space's: a branch becomes its commit, ``latest`` the folder it stood
        for.
        """
        if revision is None:
            return self
        if not self.name.startswith((*_PATH_STARTS, "s3://")):
            return self.model_copy(update={"revision": revision})
        if not self.name.endswith("/latest"):
            return self
        beside = "" if revision.startswith("/") else self.name.removesuffix("latest")
        return self.model_copy(update={"name": beside + revision})


class LakeSpec(_Part):
    """Where the table is."""

    uri: str
    """LanceDB database: a local folder or ``s3://bucket/prefix``."""
    table: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    """Name of the table; ``<table>__files`` and ``<table>__rejects`` stand beside it."""
    storage: StorageSpec = StorageSpec()
    """How to reach the bucket, when it is not plain AWS."""

    @field_validator("table")
    @classmethod
    def _table_name(cls, table: str) -> str:
        if "__" in table:
            raise ValueError(f"{table!r} holds '__', which the ledger's names use; use one '_'")
        return table


class IndexSpec(_Part):
    """When and how well the vectors are indexed."""

    min_rows: int = Field(default=50_000, ge=256)
    """Below this many rows exact search is fast enough and no vector index is built."""
    target_recall: float = Field(default=0.95, gt=0, le=1)
    """recall@10 against exact search that the index must reach on a sample of the table."""
    kind: Literal["auto"] | IndexKind = "auto"
    """Kind of vector index; ``auto`` chooses by number of rows and dimension."""
    full_text: bool = False
    """Keep a full-text index on ``text``, which hybrid search needs."""


class MaintainSpec(_Part):
    """How the table is kept fit; changes no row and no vector."""

    small_fragments: int = Field(default=64, ge=2)
    """A run that leaves more small fragments than this in one of its tables maintains them all."""
    keep_hours: float = Field(default=168, ge=1)
    """Versions older than this are removed, unless they are tagged; a reader that stays on one
    version for longer fails."""


class ReleaseSpec(_Part):
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


class Recipe(_Part):
    """One table: its source, its chunks, its model, its lake."""

    name: str = Field(min_length=1, max_length=100)
    """Readable name; a table remembers which recipe made it."""
    source: SourceSpec
    chunk: ChunkSpec = TokenWindows()
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

    @classmethod
    def load(cls, recipe: str | Path | Mapping[str, Any], base: Path | None = None) -> Recipe:
        """Read a recipe from a YAML file, an ``s3://`` URI, a mapping, or JSON text (``{…}``).

        Relative paths in a file are relative to that file, in the others to ``base``; without one
        they are refused, since a working directory is another in every process. Raises
        ``UsageError`` with every problem found and the nearest known name of a wrong key.
        """
        if isinstance(recipe, Mapping):
            return _validated(dict(recipe), base, "the recipe")
        text = str(recipe)
        if text.lstrip().startswith("{"):
            return _validated(_mapping(text, "the recipe"), base, "the recipe")
        uri = storage.absolute(text, Path.cwd())
        if storage.is_local(uri):
            base = Path(uri).parent
        return _validated(_read_yaml(uri, text), base, text)

    def with_model(self, model: str | Mapping[str, Any] | None, base: Path | None = None) -> Recipe:
        """This recipe with another model.

        A name takes the place of the recipe's, its revision and its adapter; the rest of the model
        section stays. A mapping is a whole model section. None changes nothing. Paths are relative
        to ``base``; without one they are absolute. Raises ``UsageError`` for a bad section.
        """
        if model is None:
            return self
        if isinstance(model, str):
            model = self.model.model_dump(exclude={"revision", "adapter"}) | {"name": model}
        content = self.model_dump(mode="json") | {"model": dict(model)}
        return _validated(content, base, "the model")


class Resources(_Part):
    """What only changes speed: never hashed, free to differ from run to run."""

    device: str = "auto"
    """``auto``, ``cpu``, ``cuda`` or ``cuda:N``."""
    batch_tokens: int | None = Field(default=None, ge=1)
    """Tokens in one forward pass; default: chosen for the device."""
    unit_bytes: int = Field(default=4 * 1024 * 1024, ge=1)
    """Small files are packed, and huge ones sliced, to about this many bytes per task."""
    part_rows: int = Field(default=65_536, ge=1)
    """Within a long unit, rows are saved in parts of about this many: a retry redoes one part."""
    units_per_commit: int = Field(default=16, ge=1)
    """Work units committed together; twice as many are in flight at most."""
    seconds_per_commit: float = Field(default=60.0, gt=0)
    """Units that are ready are committed after this time, even when they are fewer."""
    gpus_per_task: float | None = Field(default=None, ge=0)
    """GPUs Ray reserves for an embed task; 0 runs it on CPUs; default: 1 when Ray is local, the
    machine has an NVIDIA GPU and ``device`` is not ``cpu``, else 0."""
    cpus_per_task: float | None = Field(default=None, gt=0)
    """CPUs Ray reserves for an embed task; default: 1 with a GPU, else all of a local machine."""

    @field_validator("device")
    @classmethod
    def _known_device(cls, device: str) -> str:
        if re.fullmatch(r"auto|cpu|cuda(:\d+)?", device) is None:
            raise ValueError(f"{device!r} is no device; use auto, cpu, cuda or cuda:N")
        return device

    def updated(self, changes: Mapping[str, Any]) -> Resources:
        """These resources with some values changed. Raises ``UsageError`` for a wrong one."""
        try:
            return Resources.model_validate(self.model_dump() | dict(changes))
        except ValidationError as error:
            raise UsageError(_explain(error, "resources", Resources)) from error


class _StrictLoader(yaml.SafeLoader):
    """``SafeLoader``, but a key given twice is an error instead of the last one winning."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key.value!r} twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _read_yaml(uri: str, given: str) -> dict[str, Any]:
    """What a recipe file holds; ``given`` is its URI as someone wrote it."""
    try:
        content = storage.read_bytes(uri, StorageSpec())
    except FileNotFoundError as error:
        led_there = "" if uri == given else f" (where {given!r} leads from {Path.cwd()})"
        raise UsageError(
            f"no recipe at {uri}{led_there}; give the path of a YAML file, an absolute one for a "
            "deployment, whose worker has a working directory of its own"
        ) from error
    except IsADirectoryError as error:
        raise UsageError(f"{uri} is a folder; give the path of a recipe (a YAML file)") from error
    except OSError as error:
        raise UsageError(f"cannot read the recipe {uri}: {error}") from error
    return _mapping(content, uri)


def _mapping(text: str | bytes, origin: str) -> dict[str, Any]:
    try:
        content = yaml.load(text, _StrictLoader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{origin} is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise UsageError(
            f"{origin} holds no recipe: expected keys such as name, source, model, lake; "
            "see `embedlake schema`"
        )
    return content


def _validated(content: dict[str, Any], base: Path | None, origin: str) -> Recipe:
    try:
        recipe = Recipe.model_validate(content)
    except ValidationError as error:
        raise UsageError(_explain(error, origin, Recipe)) from error
    if base is None:
        _refuse_relative_paths(recipe, origin)
    return _with_absolute_paths(recipe, base or Path("/"))


def _refuse_relative_paths(recipe: Recipe, origin: str) -> None:
    """There is no file that they could be relative to, and a worker's working directory is
    anywhere."""
    relative = [
        f"  {field}: {path!r} is relative"
        for field, path in _paths(recipe)
        if path is not None
        and storage.is_local(path)
        and not path.startswith(("/", "~", "file://"))
    ]
    if relative:
        lines = [
            f"{origin} cannot be used:",
            *relative,
            "A recipe that is no file on disk has no folder to be relative to: write absolute "
            "paths or s3:// URIs.",
        ]
        raise UsageError("\n".join(lines))


def _paths(recipe: Recipe) -> Iterator[tuple[str, str | None]]:
    """Every path or URI of a recipe by its field; of models those that are paths."""
    yield "source.uri", recipe.source.uri
    yield "lake.uri", recipe.lake.uri
    yield "release.queries", recipe.release.queries
    yield "release.qrels", recipe.release.qrels
    for field, model in (
        ("model.name", recipe.model.name),
        ("model.adapter", recipe.model.adapter),
        ("chunk.tokenizer", recipe.chunk.tokenizer),
    ):
        if model is not None and model.startswith(_PATH_STARTS):
            yield field, model


def _with_absolute_paths(recipe: Recipe, base: Path) -> Recipe:
    """Resolve every path once, so that any process on the machine reads the same files."""
    model = {
        field: model_path(name, base)
        for field in ("name", "adapter")
        if (name := getattr(recipe.model, field)) is not None
    }
    tokenizer = recipe.chunk.tokenizer
    if tokenizer is not None:
        tokenizer = model_path(tokenizer, base)
    release = {
        name: storage.absolute(uri, base)
        for name in ("queries", "qrels")
        if (uri := getattr(recipe.release, name)) is not None
    }
    return recipe.model_copy(
        update={
            "source": recipe.source.model_copy(
                update={"uri": storage.absolute(recipe.source.uri, base)}
            ),
            "chunk": recipe.chunk.model_copy(update={"tokenizer": tokenizer}),
            "model": recipe.model.model_copy(update=model),
            "lake": recipe.lake.model_copy(update={"uri": storage.absolute(recipe.lake.uri, base)}),
            "release": recipe.release.model_copy(update=release),
        }
    )


def model_path(name: str, base: Path) -> str:
    """A model's name that means the same in any folder: a path made absolute, others as they are.

    ``latest`` may be a link that moves: where it points is looked up when the model is.
    """
    if not name.startswith(_PATH_STARTS):
        return name.rstrip("/") if name.startswith("s3://") else name
    parent, _, last = name.rstrip("/").rpartition("/")
    if last == "latest":
        return str(Path(storage.absolute(parent or "/", base), last))
    return storage.absolute(name, base)


def _explain(error: ValidationError, origin: str, root: type[BaseModel]) -> str:
    lines = [f"{origin} cannot be used:"]
    for problem in error.errors():
        section, path = _section(root, problem["loc"])
        where = ".".join(path) or root.__name__.lower()
        if problem["type"] == "extra_forbidden":
            lines.append(f"  {where}: unknown key{_nearest(path[-1], section)}")
        elif problem["type"] == "union_tag_invalid":
            context = problem["ctx"]
            lines.append(
                f"  {where}.strategy: {context['tag']!r} is unknown; "
                f"use one of {context['expected_tags']}"
            )
        else:
            lines.append(f"  {where}: {_wrong(problem)}")
    lines.append(
        "`embedlake schema` prints every key with its meaning."
        if root is Recipe
        else "`embedlake embed --help` lists the resources."
    )
    return "\n".join(lines)


def _wrong(problem: ErrorDetails) -> str:
    """What is wrong with a value, in the words of YAML, and which value it is."""
    if problem["type"] == "missing":
        return "is required"
    if problem["type"] == "value_error":
        return str(problem["ctx"]["error"])
    if problem["type"] == "tuple_type":
        return f"should be a list, as in [{problem['input']!r}]"
    return f"{problem['msg']}, got {reprlib.repr(problem['input'])}"


def _section(
    root: type[BaseModel], loc: tuple[int | str, ...]
) -> tuple[type[BaseModel] | None, list[str]]:
    """The section that holds the key at ``loc``, and the keys on the way as a recipe has them.

    Pydantic puts the tag of a section's variant into ``loc`` (``chunk.none.overlap``). The section
    is None below a key that holds no section.
    """
    section: type[BaseModel] | None = root
    path: list[str] = []
    steps = iter(map(str, loc))
    key = next(steps, None)
    while key is not None:
        path.append(key)
        field = None if section is None else section.model_fields.get(key)
        key = next(steps, None)
        if key is not None:
            variants = {} if field is None else section_variants(field.annotation)
            section = variants.get(key, variants.get(""))
            key = next(steps, None) if key in variants else key
    return section, path


def section_variants(annotation: object) -> dict[str, type[BaseModel]]:
    """The sections a field may hold, by tag; ``""`` is that of a field with one kind of section."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {"": annotation}
    tagged = [get_args(member) for member in get_args(annotation)]
    return {
        member[1].tag: member[0]
        for member in tagged
        if len(member) == 2 and isinstance(member[1], Tag)
    }


def _nearest(key: str, section: type[BaseModel] | None) -> str:
    """``; did you mean 'chunk'?`` for a misspelt key, else the keys that exist there."""
    if section is None:
        return ""
    close = difflib.get_close_matches(key, section.model_fields, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known keys: {', '.join(section.model_fields)}"
