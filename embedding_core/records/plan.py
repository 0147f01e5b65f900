"""What a run would do."""

from __future__ import annotations

from dataclasses import dataclass

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
