"""Files of a source, and their versions in a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One version of one input file."""

    uri: str
    """Where it is: an absolute local path, or a URI of the store without a version."""
    fingerprint: str
    """Identity of its content: size and hash (local, hub) or size and ETag (S3)."""
    size_bytes: int
    """Size as stored, in bytes."""
    version: str = ""
    """The version to ask the store for, such as a commit of a hub, or what a file system says of a
    file; no part of any identity."""


@dataclass(frozen=True, slots=True)
class FileVersion:
    """A version of a file that was read before, as the table and its ledger remember it."""

    uri: str
    file_key: str
    """Digest of URI, content and row rules."""
    fingerprint: str = ""
    """Identity of its content; empty where only the table was asked."""
    rows_id: str = ""
    """Digest of the rules that cut it."""
    n_rows: int = 0
    """Rows it gave the table."""
    n_failed: int = 0
    """Chunks that got no vector."""
    run_id: str = ""
    """The run that read it."""
    choice: str = ""
    """Digest of the choice among its documents; empty where all were taken."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which documents of a file version are taken, by their ordinals in the file.

    An ordinal is a document's position, and its number among the documents of that record.
    """

    digest: str = ""
    """Identity of the choice; empty where every document is taken."""
    chosen_ordinals: bytes | None = None
    """Ordinals that are taken, packed; None: all but ``duplicate_ordinals``."""
    duplicate_ordinals: bytes = b""
    """Ordinals of documents with a text that another document has, packed; empty without any."""
    end: int | None = None
    """The file is read up to this ordinal, which is not read; None: to its end."""
    is_read: bool = True
    """Whether something in the file comes into the table or its rejects."""
    chosen: int = 0
    """Number of documents taken."""
    duplicates: int = 0
    left_out: int = 0
    """Number of documents that are neither taken nor duplicates."""


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """A file of the source, compared with the table."""

    file: SourceFile
    file_key: str
    """Digest of URI, content and row rules: same key, same rows."""
    change: Literal["added", "changed", "moved"]
    """``changed``: the table holds other rows of this file; ``moved``: it holds rows of the same
    content under a URI that left the source."""
    why: str
    """The change in words: new file, content changed, chunking changed, moved from another URI."""
    replaces: tuple[str, ...] = ()
    """File keys of the versions in the table whose rows this one replaces."""
    moved_from: str | None = None
    """The URI that the content had before."""
    same_as: FileVersion | None = None
    """A version with the same content under another URI: the file was moved or copied."""
    again: bool = False
    """Its rows were made before by the same rules; results saved then must not be used."""
    choice: Choice | None = None
    """Which of its documents are taken; None: all, or not known before the file was surveyed."""

    @property
    def choice_digest(self) -> str:
        """Digest of the choice; empty where every document is taken."""
        return "" if self.choice is None else self.choice.digest

    @property
    def is_read(self) -> bool:
        """Whether the file is read at all."""
        return self.choice is None or self.choice.is_read

    @property
    def is_read_whole(self) -> bool:
        """Whether the file is read to its end."""
        return self.is_read and (self.choice is None or self.choice.end is None)

    @property
    def bytes_to_read(self) -> int:
        """Stored bytes that are read of the file at most."""
        return self.file.size_bytes if self.is_read else 0


@dataclass(frozen=True, slots=True)
class PassedOver:
    """Counts of names below a source that are not read: files, and folders not looked into."""

    hidden: int = 0
    """Names that begin with ``_`` or ``.``, where no glob writes that."""
    excluded: int = 0
    """Names that ``source.exclude`` matches."""
    unmatched: int = 0
    """Files that ``source.include`` does not match, or that have no known format."""
