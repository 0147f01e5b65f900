"""Which documents of a source are taken, and what is read to choose them."""

from __future__ import annotations

from dataclasses import dataclass

from embedding_core.records.files import SourceFile
from embedding_core.records.units import Slice


@dataclass(frozen=True, slots=True)
class SurveyUnit:
    """Files that one task reads to choose among their documents."""

    unit_id: str
    """Digest of the files' content, of how they are surveyed and of their members."""
    files: tuple[SourceFile, ...]
    members: tuple[bytes, ...] = ()
    """Per file the identities (uint64) of documents that were chosen before."""
    slice: Slice | None = None
    """Which slice of its only file the unit is; None for whole files."""

    @property
    def label(self) -> str:
        """Short name for people: the first file, and how many more or which slice."""
        first = self.files[0].uri.rsplit("/", 1)[-1]
        if self.slice is not None:
            return f"{first} [{self.slice.number + 1}/{self.slice.count}]"
        return first if len(self.files) == 1 else f"{first} +{len(self.files) - 1}"


@dataclass(frozen=True, slots=True)
class ChoiceSummary:
    """What is left out of a source by choice."""

    files_to_survey: int
    """Files that a run reads first, to choose among their documents; until then the other figures
    are those of the files that were surveyed before."""
    bytes_to_survey: int
    """Stored bytes of these files; fewer are read where a limit is reached before."""
    chosen: int
    """Documents that are taken."""
    duplicates: int
    """Documents with a text that another document has."""
    left_out: int
    """Documents that the recipe's sample or limit leaves out, of the files that are read."""
    files_beyond: int
    """Files that are not read, because ``source.limit`` is reached before."""
