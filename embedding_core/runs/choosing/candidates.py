"""Candidates: what a choice needs to know of a document, 41 bytes each."""

from __future__ import annotations

import hashlib
import zlib
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from embedding_core.errors import SetupError
from embedding_core.plurals import counted
from embedding_core.records import Document, Reject
from embedding_core.runs.choosing.rules import Choosing, Identities

CANDIDATE = np.dtype(
    [
        ("ordinal", "<i8"),  # position << NUMBER_BITS | number among the record's documents
        ("identity", "<u8"),
        ("group", "<u8"),  # digest of the value that a sample is taken per
        ("text", "<u8", (2,)),  # digest of the text; zeros where duplicates may stay
        ("stage", "u1"),  # how far the last choice let it come
    ]
)
Candidates: TypeAlias = NDArray[np.void]
"""(n_candidates,) of ``CANDIDATE``, in the order of their ordinals in one file or several."""
Ordinals: TypeAlias = NDArray[np.int64]

NEW, DUPLICATE, NOT_SAMPLED, BEYOND, TAKEN = range(5)
"""Stages, in their order: a document comes as far as one of them."""

NUMBER_BITS = 20
"""Bits for the number of a document among those of its record."""
ROWS_PER_BLOCK = 65_536
"""Candidates that are collected as Python's objects before they become an array."""
MOST_GROUPS = 100_000
"""Groups of a sample; each may keep ``rows`` candidates per file."""
MOST_CANDIDATES = 50_000_000
"""Candidates that are compared at once: about 7 GB with what sorting takes. They are kept as
one value per file, which Parquet ends at 2 GiB."""


def with_ordinals(
    records: Iterable[Document | Reject],
) -> Iterator[tuple[int, Document | Reject]]:
    """The records of a file in its order, each with its ordinal."""
    last, number = -1, 0
    for record in records:
        position = last if record.position is None else record.position
        number = number + 1 if position == last else 0
        last = position
        yield position << NUMBER_BITS | number, record


def packed(ordinals: Ordinals) -> bytes:
    """Ascending ordinals in little memory: a byte or two each."""
    return (
        zlib.compress(np.diff(ordinals, prepend=0).astype("<i8").tobytes())
        if len(ordinals)
        else b""
    )


class PackedOrdinals:
    """Ordinals that ``packed`` made small, to look them up."""

    def __init__(self, content: bytes) -> None:
        steps = np.frombuffer(zlib.decompress(content) if content else b"", "<i8")
        self._ordinals: Sequence[int] = memoryview(np.cumsum(steps, dtype=np.int64).data)

    def __contains__(self, ordinal: int) -> bool:
        index = bisect_left(self._ordinals, ordinal)
        return index < len(self._ordinals) and self._ordinals[index] == ordinal


class CandidateList:
    """The candidates of one file, or of a slice of it; memory is bounded where the choice is.

    ``members``: identities of documents that stay candidates, because they were chosen before.
    """

    def __init__(self, choosing: Choosing, identities: Identities, members: bytes = b"") -> None:
        self._choosing = choosing
        self._identities = identities
        self._members = np.frombuffer(members, "<u8")
        self._missing = set(self._members.tolist())
        self._groups: dict[str | None, int] = {}
        self._blocks: list[Candidates] = []
        self._rows: list[tuple[int, int, int, tuple[int, int], int]] = []
        self._n_pruned = 0

    def add(self, ordinal: int, document: Document) -> None:
        """Note a document. Raises ``SetupError`` for more groups than a sample can have, and for
        more candidates than can be compared."""
        identity = self._identities.of(document.doc_id)
        self._missing.discard(identity)
        text = text_digest(document.text) if self._choosing.deduplicate else (0, 0)
        self._rows.append((ordinal, identity, self._group(document), text, NEW))
        if len(self._rows) == ROWS_PER_BLOCK:
            self._end_block()

    def all(self) -> Candidates:
        """Every document that may be taken, by ordinal."""
        self._end_block()
        rows = pruned(np.concatenate(self._blocks), self._choosing, self._members)
        self._blocks, self._n_pruned = [rows], len(rows)
        return rows

    @property
    def has_all_members(self) -> bool:
        """Whether every member was noted."""
        return not self._missing

    def _end_block(self) -> None:
        self._blocks.append(np.array(self._rows, CANDIDATE))
        self._rows = []
        n_rows = sum(map(len, self._blocks))
        check_candidates(n_rows)
        if self._choosing.most_of_a_group is not None and n_rows > 2 * self._n_pruned:
            rows = pruned(np.concatenate(self._blocks), self._choosing, self._members)
            self._blocks, self._n_pruned = [rows], max(len(rows), ROWS_PER_BLOCK)

    def _group(self, document: Document) -> int:
        sample = self._choosing.sample
        if sample is None or sample.per is None:
            return 0
        group = self._groups.get(document.group)
        if group is None:
            group = self._groups[document.group] = group_digest(document.group)
            check_groups(len(self._groups), self._choosing)
        return group


def pruned(rows: Candidates, choosing: Choosing, members: NDArray[np.uint64]) -> Candidates:
    """The candidates of one file without those that cannot be taken, by ordinal."""
    most = choosing.most_of_a_group
    if most is not None:
        stays = np.isin(rows["identity"], members)
        order = sample_order(rows, choosing)
        stays[order[numbers(rows["group"][order]) < most]] = True
        rows = rows[stays]
    return rows[np.argsort(rows["ordinal"], kind="stable")]


def sample_order(
    rows: Candidates, choosing: Choosing, first: NDArray[np.bool_] | None = None
) -> NDArray[np.int64]:
    """Indices by group, and within a group in the order in which a sample takes documents.

    ``first``: rows that come before the others of their group.
    """
    sample = choosing.sample
    by_chance = sample is not None and not sample.top
    ranks = rows["identity"] if by_chance else np.arange(len(rows))
    later = np.zeros(len(rows), np.bool_) if first is None else ~first
    order: NDArray[np.int64] = np.lexsort((ranks, later, rows["group"]))
    return order


def numbers(keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Per element its 0-based number among equal neighbours."""
    indices = np.arange(len(keys))
    begins = np.ones(len(keys), np.bool_)
    begins[1:] = keys[1:] != keys[:-1]
    ahead: NDArray[np.int64] = indices - np.maximum.accumulate(np.where(begins, indices, 0))
    return ahead


def text_digest(text: str) -> tuple[int, int]:
    """Hash of a text, 128 bits: 10⁹ texts collide with a chance of 10⁻²¹."""
    hashed = hashlib.blake2b(text.encode(), digest_size=16).digest()
    return int.from_bytes(hashed[:8], "little"), int.from_bytes(hashed[8:], "little")


def group_digest(value: str | None) -> int:
    """Hash of the value that a sample is taken per; of no value too."""
    written = b"" if value is None else b"=" + value.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(written, digest_size=8).digest(), "little")


def check_groups(n_groups: int, choosing: Choosing) -> None:
    """Raise ``SetupError`` for more groups than a sample can have."""
    if n_groups > MOST_GROUPS and choosing.sample is not None:
        raise SetupError(
            f"source.sample.per: the field {choosing.sample.per!r} has more than {MOST_GROUPS:,} "
            f"different values, and a sample keeps up to "
            f"{counted(choosing.sample.rows, 'document')} of "
            "each; name a field with fewer values, or leave per out"
        )


def check_candidates(n_candidates: int) -> None:
    """Raise ``SetupError`` for more candidates than are compared at once."""
    if n_candidates > MOST_CANDIDATES:
        raise SetupError(
            f"to choose among the documents of the source, {n_candidates:,} of them would have to "
            f"be compared at once, more than {MOST_CANDIDATES:,} (about 7 GB of memory); choose "
            "fewer files with source.include, a smaller source.sample.rows or source.limit, or "
            "leave source.deduplicate out"
        )
