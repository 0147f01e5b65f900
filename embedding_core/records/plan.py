"""What a run would do."""

from __future__ import annotations

from dataclasses import dataclass

from embedding_core.records.choices import ChoiceSummary
from embedding_core.records.documents import Reject
from embedding_core.records.files import PassedOver, PlannedFile


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
    """Files that left the source but are still in the table, its ledger or its rejects."""
    removed_keys: tuple[str, ...]
    """File keys of the rows of ``removed_uris``."""
    rowless_keys: tuple[str, ...]
    """File keys of versions without rows, of files that left the source or moved."""
    removed_share: float
    """Files whose rows would be removed, per file that has rows in the table."""
    max_removed_share: float
    """The largest ``removed_share`` that the recipe allows without leave."""
    kept_uris: tuple[str, ...]
    """Files that left the source and whose rows stay, because the recipe says so."""
    unchanged_uris: tuple[str, ...]
    """Files whose rows are in the table already."""
    only_rejects: int
    """Number of unchanged files that gave nothing but rejects."""
    unreadable: tuple[Reject, ...]
    """Files that could not be read; their rows in the table stay."""
    passed_over: PassedOver
    """Counts of what the source holds beside its files."""
    columns_added: tuple[str, ...]
    """Metadata columns that the table gets; they are filled when its files are read again."""
    columns_dropped: tuple[str, ...]
    """Metadata columns that the recipe no longer declares, or declares with another type."""
    sample_problems: tuple[str, ...]
    """A sentence for each problem of the records that the estimate sampled."""
    lost_share: float
    """Share of the files with rows that would lose them for nothing: the recipe would cut them
    again, and can use none of the sampled records. 0 when it can use a sampled record."""
    table_version: int | None
    """Version of the table that was compared; None without a table."""
    estimated_chunks: int | None
    """Chunks of the files to work on, from a sample of their text; moved files count as 0. None
    where no text was read: nothing is downloaded to plan."""
    estimated_tokens: int | None
    """Tokens of these chunks, those whose vectors changed files keep included."""
    work_seconds: float | None
    """Time for these tokens at the rate of this table's earlier runs; None before the first run."""
    choice: ChoiceSummary | None
    """What the recipe's choice leaves out; None where it takes every document."""
    starting_seconds: float
    """Time until the first text is embedded, for Ray and a model to start."""

    @property
    def estimated_seconds(self) -> float | None:
        """Time of the whole run, its start included; None without a rate."""
        return None if self.work_seconds is None else self.starting_seconds + self.work_seconds

    @property
    def size_bytes(self) -> int:
        """Stored bytes of the files to work on."""
        return sum(planned.file.size_bytes for planned in self.files)

    @property
    def unchanged(self) -> int:
        """Number of files whose rows are in the table already."""
        return len(self.unchanged_uris)

    @property
    def is_source_empty(self) -> bool:
        """Whether the source holds no file that the recipe reads."""
        return not (self.files or self.unchanged_uris or self.unreadable)

    @property
    def removes_too_much(self) -> bool:
        """Whether a run needs leave to remove that many files."""
        return self.removed_share > self.max_removed_share

    @property
    def is_to_choose(self) -> bool:
        """Whether files have to be surveyed before it is certain what the run works on."""
        return self.choice is not None and self.choice.files_to_survey > 0

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        work = self.files or self.removed_uris or self.unreadable or self.is_to_choose
        return not (work or self.columns_added or self.columns_dropped)
