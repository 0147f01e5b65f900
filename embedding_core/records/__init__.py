"""Frozen records that the stages hand to each other.

They hold plain values only, so that they pickle small and cross processes. They know nothing of
Arrow, Lance, torch, Prefect or Ray.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

Scalar = str | int | float | bool | datetime | None
"""What a metadata column may hold."""

ColumnType = Literal["string", "int", "float", "bool", "timestamp"]
"""Declared type of a metadata column; a timestamp is kept in UTC, to the microsecond."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One version of one input file."""

    uri: str
    """Where it is: an absolute local path or ``s3://bucket/key``."""
    fingerprint: str
    """Identity of its content: size and hash (local) or size and ETag (S3)."""
    size_bytes: int
    """Size as stored, in bytes."""


@dataclass(frozen=True, slots=True)
class Reject:
    """One thing that was left out, and why. Nothing is dropped without one."""

    source_uri: str
    """The file it was in."""
    doc_id: str | None
    """The document's id, when it was read far enough to have one."""
    position: int | None
    """0-based: line (JSONL), row (Parquet) or chunk index; None when the whole file is rejected."""
    reason: str
    """A short fixed word, for example ``malformed_json``."""
    detail: str
    """What a person needs to find and fix it."""


@dataclass(frozen=True, slots=True)
class Document:
    """One record of a source file, its text rendered and validated."""

    doc_id: str
    """Unique within its file: the declared id field, or the position when none is declared."""
    position: int
    """0-based line or row in the file."""
    text: str
    """Valid Unicode: no lone surrogate, no NUL character, not blank."""
    metadata: Mapping[str, Scalar] = field(default_factory=dict)
    """Values of the declared metadata columns, of the declared types."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a document: ``document.text[char_start:char_end] == text``."""

    index: int
    """0-based place in its document."""
    text: str
    """The exact characters that are embedded."""
    char_start: int
    """Offset of the first character in the document's text, in characters, 0-based."""
    char_end: int
    """Offset after the last character, in characters."""
    n_tokens: int
    """Tokens the model sees for this text, special tokens included."""


@dataclass(frozen=True, slots=True)
class Space:
    """What decides whether two vectors may be compared. Its digest is the ``space_id``."""

    model: str
    """Readable name, the adapter's included, for people; not part of the digest."""
    revision: str | None
    """A hub model's commit, or the folder that ``latest`` stood for; not part of the digest."""
    weights: tuple[str, ...]
    """SHA-256 of every weight file, of the model's config and of what an adapter adds, sorted."""
    tokenizer: str
    """SHA-256 of the tokenizer file."""
    pooling: str
    """``mean``, ``cls`` or ``last``."""
    query_prompt: str
    """Text put in front of a query."""
    document_prompt: str
    """Text put in front of a document."""
    max_tokens: int
    """Longest input in tokens, special tokens included."""
    dim: int
    """Length of a vector."""
    normalize: bool
    """Whether vectors have unit length."""
    dtype_class: Literal["half", "full", "fp8"]
    """``half``: computed in fp16 or bf16 (or fp32 where that is faster); ``full``: fp32; ``fp8``:
    matrices in fp8, the rest in bf16."""


@dataclass(frozen=True, slots=True)
class HeldVersion:
    """A file version that has rows in the table."""

    uri: str
    file_key: str


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """A file of the source beside what the table holds of it."""

    file: SourceFile
    file_key: str
    """Digest of URI, content and row rules: same key, same rows."""
    change: Literal["added", "changed", "moved"]
    """``changed``: the table holds other rows of this file; ``moved``: it holds rows of the same
    content under a URI that left the source."""
    why: str
    """For a person: new file, content changed, chunking changed, moved from another URI."""
    replaces: tuple[str, ...] = ()
    """File keys of the versions in the table whose rows this one replaces."""
    moved_from: str | None = None
    """The URI that the content had before."""
    same_as: HeldVersion | None = None
    """Rows of the same content under another name: it was passed on, or the file was copied."""
    again: bool = False
    """Its rows were made before by the same rules: results kept from then are not to be used."""


@dataclass(frozen=True, slots=True)
class PassedOver:
    """Names below a source that are not read: files, and folders that are not looked into."""

    hidden: int = 0
    """They begin with ``_`` or ``.``, and no glob names them so."""
    excluded: int = 0
    """``source.exclude`` names them."""
    unmatched: int = 0
    """Files that ``source.include`` does not name, or whose format nobody reads."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The source against the table: what a run would do, before anything is paid for."""

    recipe: str
    """Name of the recipe."""
    space_id: str
    """The space the vectors will be in."""
    rows_id: str
    """Digest of the rules that cut the files into rows."""
    files: tuple[PlannedFile, ...]
    """Files to work on, sorted by URI."""
    removed_uris: tuple[str, ...]
    """Files that left the source and that the table, its ledger or its rejects still know."""
    removed_keys: tuple[str, ...]
    """The file keys of their rows."""
    rowless_keys: tuple[str, ...]
    """File keys of versions that gave no rows, of files that left the source or moved."""
    removed_share: float
    """Files whose rows are to go, per file that has rows in the table."""
    max_removed_share: float
    """What the recipe tolerates of that without being asked."""
    kept_uris: tuple[str, ...]
    """Files that left the source and whose rows stay, because the recipe says so."""
    unchanged_uris: tuple[str, ...]
    """Files whose rows are in the table already."""
    only_rejects: int
    """Unchanged files of which nothing but rejects came."""
    unreadable: tuple[Reject, ...]
    """Files that could not be fingerprinted; rows they have in the table stay."""
    passed_over: PassedOver
    """What the source holds beside its files."""
    columns_added: tuple[str, ...]
    """Metadata columns that the table gets; they are filled as its files are read again."""
    columns_dropped: tuple[str, ...]
    """Metadata columns that the recipe declares no more, or with another type."""
    sample_problems: tuple[str, ...]
    """What is wrong with the records that the estimate sampled, a sentence each."""
    lost_share: float
    """Files whose rows the recipe would now make otherwise, per file that has rows, if it can use
    none of the sampled records; else 0: so many files would lose their rows for nothing."""
    table_version: int | None
    """Version of the table that was compared; None when there is no table yet."""
    estimated_chunks: int
    """Chunks of the files to work on, from a sample of their text; moved files count as none."""
    estimated_tokens: int
    """Tokens of these chunks; vectors that changed files keep are not taken off."""
    work_seconds: float | None
    """Time that these tokens take at the rate of this table's earlier runs; None before the
    first."""
    starting_seconds: float
    """Time until the first text is embedded: Ray and a model have to start."""

    @property
    def estimated_seconds(self) -> float | None:
        """Time of the whole run, its start included; None where no rate is known."""
        return None if self.work_seconds is None else self.starting_seconds + self.work_seconds

    @property
    def size_bytes(self) -> int:
        """Bytes of the files to work on, as stored."""
        return sum(planned.file.size_bytes for planned in self.files)

    @property
    def unchanged(self) -> int:
        """Number of files whose rows are in the table already."""
        return len(self.unchanged_uris)

    @property
    def removes_too_much(self) -> bool:
        """Whether a run needs leave to remove that many files."""
        return self.removed_share > self.max_removed_share

    @property
    def is_empty(self) -> bool:
        """Whether the table already says what the source says."""
        work = self.files or self.removed_uris or self.unreadable
        return not (work or self.columns_added or self.columns_dropped)


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of a huge file that is read apart from the others."""

    number: int
    """0-based place among the file's slices."""
    count: int
    """How many slices the file has."""
    start: int
    """First byte of a line (JSON lines) or first row group (Parquet)."""
    end: int
    """After the last one."""
    first_position: int
    """0-based line or row of the slice's first record in the file."""
    duplicates: tuple[int, ...] = ()
    """Positions of records whose id a record of an earlier slice has."""


@dataclass(frozen=True, slots=True)
class WorkUnit:
    """What one task processes: one file, a slice of a huge one, or small files packed together."""

    unit_id: str
    """Digest of the file keys, the slice and the space: the cache key of the unit's tasks."""
    files: tuple[PlannedFile, ...]
    slice: Slice | None = None
    """Which part of its only file the unit is; None for whole files."""
    slice_ids: tuple[str, ...] = ()
    """Of a file put together again: the units of its slices; of a slice that was done once more:
    what it was before."""

    @property
    def label(self) -> str:
        """Short name for people: the first file, and how many more or which slice."""
        first = self.files[0].file.uri.rsplit("/", 1)[-1]
        if self.slice is not None:
            return f"{first} [{self.slice.number + 1}/{self.slice.count}]"
        return first if len(self.files) == 1 else f"{first} +{len(self.files) - 1}"


@dataclass(frozen=True, slots=True)
class FileCounts:
    """What became of one file. ``chunks == embedded + reused + dropped + failed``."""

    file_key: str
    source_uri: str
    documents: int
    """Records that gave a usable text."""
    rejected: int
    """Records or whole files left out before chunking; each has a row in rejects."""
    chunks: int
    """Pieces cut from the documents."""
    dropped: int
    """Chunks left out by the length policy; each has a row in rejects."""
    tokens: int
    """Tokens of the chunks that are kept."""
    embedded: int = 0
    """Chunks whose vector was computed."""
    reused: int = 0
    """Chunks whose vector was already known: an equal text in the same unit, in the rows that this
    file replaces, or in those of the same content under another name."""
    failed: int = 0
    """Chunks without a vector although none of the rules above left them out."""

    @property
    def rows(self) -> int:
        """Rows this file gives the table."""
        return self.embedded + self.reused

    @property
    def balances(self) -> bool:
        """Whether every chunk is accounted for."""
        return self.chunks == self.embedded + self.reused + self.dropped + self.failed


@dataclass(frozen=True, slots=True)
class StagedUnit:
    """A chunked unit: its rows wait in one Arrow IPC file."""

    unit: WorkUnit
    path: str
    """URI of the staged Arrow IPC stream, rows in file order."""
    counts: tuple[FileCounts, ...]
    """One per file, in the unit's order; ``embedded`` still 0."""
    file_rejects: tuple[Reject, ...]
    """Of files rejected as a whole; rejects of records are staged beside the rows."""
    reasons: Mapping[str, int]
    """Number of all rejects by reason."""
    reject_paths: tuple[str, ...]
    """URIs of the staged rejects."""
    ids_path: str | None
    """URI of the ids that a slice used; None when no ids can collide."""
    rejected_keys: tuple[str, ...]
    """Files rejected as a whole: rows staged before the fault was met are not to be used."""
    seconds: float
    """Wall clock of reading, cutting and staging."""


@dataclass(frozen=True, slots=True)
class EmbeddedUnit:
    """An embedded unit: its rows are in the table's storage, not yet in the table."""

    unit: WorkUnit
    fragments: tuple[str, ...]
    """Lance fragment metadata, JSON, ready to commit."""
    counts: tuple[FileCounts, ...]
    file_rejects: tuple[Reject, ...]
    reasons: Mapping[str, int]
    """Number of all rejects by reason."""
    reject_paths: tuple[str, ...]
    """URIs of the staged rejects."""
    ids_path: str | None
    """URI of the ids that a slice used; None when no ids can collide."""
    rejected_keys: tuple[str, ...]
    """Files rejected as a whole: rows of an earlier version stay in the table."""
    recomputed: int
    """Rows that half precision could not represent and a wider type computed again."""
    seconds: float
    """Chunking and embedding together, wall clock."""
