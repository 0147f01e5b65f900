"""Work units, and what came of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from embedding_core.records.documents import Reject
from embedding_core.records.files import PlannedFile
from embedding_core.records.stages import ModelWork, StageSeconds


@dataclass(frozen=True, slots=True)
class Span:
    """Records of a file that can be read apart from the others."""

    start: int
    """Where they begin, in the format's own count: bytes (JSON lines), row groups (Parquet)."""
    end: int
    """After the last of them."""
    first_position: int
    """0-based line or row of the first record in the file."""


@dataclass(frozen=True, slots=True)
class Slice:
    """A span of a huge file that one task reads."""

    number: int
    """0-based place among the file's slices."""
    count: int
    """How many slices the file has."""
    span: Span
    used_ids: tuple[str, ...] = ()
    """Digests of ids that records of this slice and of an earlier one have, in hex."""


@dataclass(frozen=True, slots=True)
class WorkUnit:
    """What one task processes: one file, a slice of a huge one, or small files packed together."""

    unit_id: str
    """Digest of the file keys, the slice and the space: the cache key of the unit's tasks."""
    files: tuple[PlannedFile, ...]
    slice: Slice | None = None
    """Which slice of its only file the unit is; None for whole files."""
    pieces: tuple[str, ...] = ()
    """Ids of earlier units whose staged files this one replaces."""

    @property
    def staged_ids(self) -> tuple[str, ...]:
        """Names of the folders that staged files of the unit are in."""
        return (self.unit_id, *self.pieces)

    @property
    def only_file(self) -> str:
        """URI of its file; empty for several."""
        return self.files[0].file.uri if len(self.files) == 1 else ""

    @property
    def size_bytes(self) -> int:
        """Stored bytes that its task reads, about."""
        n_bytes = sum(planned.file.size_bytes for planned in self.files)
        return n_bytes if self.slice is None else n_bytes // self.slice.count

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
    """Records that gave a usable text and were not left out by choice."""
    rejected: int
    """Bad records or whole files left out before chunking; each has a row in rejects."""
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
    duplicates: int = 0
    """Records left out because another document of the source has their text; each has a row in
    rejects."""
    left_out: int = 0
    """Records left out by choice: by the recipe's sample or its limit."""

    def __add__(self, other: FileCounts) -> FileCounts:
        """The counts of two slices of one file together."""
        counts = fields(self)[2:]
        sums = {
            count.name: getattr(self, count.name) + getattr(other, count.name) for count in counts
        }
        return replace(self, **sums)

    @property
    def rows(self) -> int:
        """Rows this file gives the table."""
        return self.embedded + self.reused

    @property
    def balances(self) -> bool:
        """Whether every chunk is accounted for."""
        return self.chunks == self.embedded + self.reused + self.dropped + self.failed


@dataclass(frozen=True, slots=True)
class UnitResult:
    """What became of a unit, whatever stage it has come to."""

    unit: WorkUnit
    counts: tuple[FileCounts, ...]
    """One per file, in the unit's order; ``embedded`` is 0 before the embed stage."""
    file_rejects: tuple[Reject, ...]
    """Rejects of whole files; rejects of records are staged beside the rows."""
    reasons: Mapping[str, int]
    """Number of all rejects by reason."""
    reject_paths: tuple[str, ...]
    """URIs of the staged rejects."""
    ids_path: str | None
    """URI of the ids that a slice used; None when no ids can collide."""
    rejected_keys: tuple[str, ...]
    """Files rejected as a whole. Their staged rows are not used; rows of an earlier version stay in
    the table."""
    stages: StageSeconds
    """Where the time went so far."""


@dataclass(frozen=True, slots=True)
class StagedUnit(UnitResult):
    """A chunked unit: its rows wait in one Arrow IPC file."""

    path: str
    """URI of the staged Arrow IPC stream, rows in file order."""


@dataclass(frozen=True, slots=True)
class EmbeddedUnit(UnitResult):
    """An embedded unit: its rows are in the table's storage, not yet in the table."""

    fragments: tuple[str, ...] = ()
    """Lance fragment metadata, JSON, ready to commit."""
    recomputed: int = 0
    """Rows that half precision could not represent and a wider type computed again."""
    model: ModelWork = field(default_factory=ModelWork)
    """How the model was used."""

    @classmethod
    def of(cls, result: UnitResult, **embedded: Any) -> EmbeddedUnit:
        """What became of a staged unit, with the fields that the embed stage changed or added."""
        shared = {field.name: getattr(result, field.name) for field in fields(UnitResult)}
        return cls(**(shared | embedded))

    @classmethod
    def rejected(cls, unit: WorkUnit, reject: Reject) -> EmbeddedUnit:
        """A unit of one file that is rejected as a whole: it gives no row."""
        (planned,) = unit.files
        return cls(
            unit=unit,
            counts=(FileCounts(planned.file_key, planned.file.uri, 0, 1, 0, 0, 0),),
            file_rejects=(reject,),
            reasons={reject.reason: 1},
            reject_paths=(),
            ids_path=None,
            rejected_keys=(planned.file_key,),
            stages=StageSeconds(),
        )
