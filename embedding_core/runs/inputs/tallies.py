"""What a corpus holds, counted in parts that add up: per group, and overall."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from embedding_core.errors import UsageError
from embedding_core.reasons import ALL
from embedding_core.recipe import Recipe
from embedding_core.records import Scalar
from embedding_core.runs.inputs.lengths import Lengths, LengthSummary

FILE, FOLDER = "file", "folder"
NO_VALUE = "(no value)"
"""The group of documents without a value, and of records that were rejected before it was read."""
OTHERS = "(others)"
MOST_GROUPS = 1_000
"""Further groups are counted together, as ``OTHERS``."""
DIGEST_DIGITS = 16
"""Hex digits of a text's hash that tell texts apart: 10 million texts collide with a chance of
3 in a million."""


@dataclass(frozen=True, slots=True)
class Grouping:
    """What figures are given per: each file, each folder, or each value of a metadata column."""

    by: str
    column: str | None
    """The metadata column."""

    @classmethod
    def of(cls, by: str, recipe: Recipe) -> Grouping:
        """A grouping of a recipe's documents. Raises ``UsageError`` for an undeclared column."""
        columns = recipe.source.metadata
        if by in columns:
            return cls(by, by)
        if by in (FILE, FOLDER):
            return cls(by, None)
        raise UsageError(
            f"cannot count by {by!r}; use {FILE}, {FOLDER} or a column that source.metadata "
            f"declares ({', '.join(columns) or 'it declares none'})"
        )

    def name(self, uri: str, value: Scalar = None) -> str:
        """The group of a document of the file ``uri``; ``value`` is what the column has."""
        if self.column is not None:
            return NO_VALUE if value is None else str(value)
        return uri if self.by == FILE else uri.rpartition("/")[0]


@dataclass(slots=True)
class Tally:
    """Counts of a group, or of all. Digests take 8 bytes per document and per chunk."""

    documents: int = 0
    document_lengths: Lengths = field(default_factory=Lengths)
    chunk_lengths: Lengths = field(default_factory=Lengths)
    reasons: Counter[str] = field(default_factory=Counter)
    """Rejects by reason."""
    languages: Counter[str] = field(default_factory=Counter)
    document_digests: array[int] = field(default_factory=lambda: array("Q"))
    chunk_digests: array[int] = field(default_factory=lambda: array("Q"))

    def merge(self, other: Tally) -> None:
        """Add another tally."""
        self.documents += other.documents
        self.document_lengths.merge(other.document_lengths)
        self.chunk_lengths.merge(other.chunk_lengths)
        self.reasons.update(other.reasons)
        self.languages.update(other.languages)
        self.document_digests.extend(other.document_digests)
        self.chunk_digests.extend(other.chunk_digests)

    def figures(self, name: str) -> Figures:
        """The counts as figures."""
        weights = {reason: ALL[reason].weight if reason in ALL else "" for reason in self.reasons}
        return Figures(
            name=name,
            documents=self.documents,
            chunks=sum(self.chunk_lengths.counts.values()),
            tokens=self.chunk_lengths.total,
            rejected=_total(self.reasons, (r for r, w in weights.items() if w in _LEFT_OUT)),
            dropped=_total(self.reasons, (r for r, w in weights.items() if w == "chunk")),
            reasons=dict(self.reasons.most_common()),
            duplicate_documents=_repeats(self.document_digests),
            duplicate_chunks=_repeats(self.chunk_digests),
            document_lengths=self.document_lengths.summary(),
            chunk_lengths=self.chunk_lengths.summary(),
            languages=dict(self.languages.most_common()),
        )


_LEFT_OUT = ("file", "record", "")
"""Weights of reasons that leave out a record or a file; a plugin's reason has none here."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What a group of documents holds, or all of them."""

    name: str
    documents: int
    chunks: int
    """Chunks that are embedded."""
    tokens: int
    """Tokens of these chunks."""
    rejected: int
    """Records and whole files left out."""
    dropped: int
    """Chunks left out."""
    reasons: Mapping[str, int]
    """Rejects by reason, notes among them."""
    duplicate_documents: int
    """Documents whose text another one before them has; 0 for a table, which has chunks alone."""
    duplicate_chunks: int
    """Chunks whose text one before them has."""
    document_lengths: LengthSummary | None
    """Lengths of whole documents; None for a table."""
    chunk_lengths: LengthSummary | None
    languages: Mapping[str, int]
    """Documents by language; empty where it was not asked for."""


class Groups:
    """Tallies by group, in the order in which groups came; bounded in number."""

    def __init__(self) -> None:
        self.tallies: dict[str, Tally] = {}

    def of(self, name: str) -> Tally:
        """The group's tally."""
        if name not in self.tallies and len(self.tallies) >= MOST_GROUPS:
            name = OTHERS
        if name not in self.tallies:
            self.tallies[name] = Tally()
        return self.tallies[name]

    def merge(self, other: Groups) -> None:
        """Add the tallies of other groups."""
        for name, tally in other.tallies.items():
            self.of(name).merge(tally)

    def whole(self) -> Tally:
        """All groups together."""
        together = Tally()
        for tally in self.tallies.values():
            together.merge(tally)
        return together


@dataclass(frozen=True, slots=True)
class Statistics:
    """The figures of a corpus."""

    recipe: str
    origin: str
    """``source`` or ``table``."""
    by: str
    """What the groups are: ``file``, ``folder`` or a metadata column."""
    files: int
    """Files that were read, or that have rows."""
    files_in_source: int | None
    """Files that the source has; None for a table."""
    sample_records: int | None
    """Records that were read at most; None without that limit."""
    whole: Figures
    groups: tuple[Figures, ...]
    """Figures per group, those with most tokens first."""

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        groups: Groups,
        by: str,
        files: int,
        files_in_source: int | None = None,
        sample_records: int | None = None,
    ) -> Statistics:
        """The figures of groups that were counted."""
        figures = [tally.figures(name) for name, tally in groups.tallies.items()]
        return cls(
            recipe=recipe.name,
            origin="table" if files_in_source is None else "source",
            by=by,
            files=files,
            files_in_source=files_in_source,
            sample_records=sample_records,
            whole=groups.whole().figures("all"),
            groups=tuple(sorted(figures, key=lambda group: (-group.tokens, group.name))),
        )


def digest_number(text_hash: str) -> int:
    """The beginning of a text's hash as a number of 64 bits."""
    return int(text_hash[:DIGEST_DIGITS], 16)


def _total(reasons: Counter[str], names: Iterable[str]) -> int:
    return sum(reasons[name] for name in names)


def _repeats(digests: array[int]) -> int:
    """Members that an earlier member is equal to."""
    numbers = np.frombuffer(digests, np.uint64) if digests else np.empty(0, np.uint64)
    return len(numbers) - len(np.unique(numbers))
