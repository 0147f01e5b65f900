"""What stores of whole objects share: a flat listing in pages, and streams of ranged reads."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from embedding_core.errors import SetupError
from embedding_core.plurals import counted
from embedding_core.store.places import Names

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


MOST_PAGES = 100_000
"""Pages of a list: 100 million files, a thousand a page."""


class KeyNames:
    """``Names`` asked by whole keys, for listings that have no folders; asks once per folder."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._entered = {"": True}

    def takes(self, key: str) -> bool:
        """Whether to read an object, by its key below the source."""
        return self._enters(key.rpartition("/")[0]) and self._names.takes(key)

    def _enters(self, folder: str) -> bool:
        unknown = []
        while folder not in self._entered:
            unknown.append(folder)
            folder = folder.rpartition("/")[0]
        for inner in reversed(unknown):
            self._entered[inner] = self._entered[folder] and self._names.enters(inner)
            folder = inner
        return self._entered[folder]


@dataclass(slots=True)
class Paging:
    """The pages of a list so far.

    A list without an end comes back to where it was, shows the same entries under a new cursor, or
    goes on and on: each is stopped.
    """

    where: str
    """What is listed."""
    advice: str
    """What to do about a list that does not end."""
    most: int = MOST_PAGES
    n_pages: int = 0
    _cursors: set[str] = field(default_factory=set)
    _pages: set[tuple[str, str]] = field(default_factory=set)

    def add(self, names: Sequence[str], cursor: str | None) -> None:
        """Note a page: the names of its entries, and what asks for the next page; None at the end.

        Raises ``SetupError`` for a list that would never end.
        """
        self.n_pages += 1
        if cursor is None:
            return
        ends = {(names[0], names[-1])} if names else set()
        if cursor in self._cursors or ends & self._pages:
            raise self._endless("its pages repeat")
        if self.n_pages >= self.most:
            raise self._endless(f"it goes on after {counted(self.n_pages, 'page')}, the limit")
        self._cursors.add(cursor)
        self._pages |= ends

    def _endless(self, why: str) -> SetupError:
        return SetupError(f"the list of {self.where} does not end: {why}; {self.advice}")


class RangedStream(io.RawIOBase):
    """An object as a seekable stream; each read is a request for just these bytes."""

    def __init__(self, n_bytes: int, read_range: Callable[[int, int], bytes]) -> None:
        """``read_range`` gives the bytes from a start to before an end, or raises what ``Store``
        says."""
        super().__init__()
        self._n_bytes = n_bytes
        self._read_range = read_range
        self._at = 0

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """The next byte to be read, 0-based."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to an absolute, relative or from-the-end offset in bytes."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._n_bytes}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fill the buffer with one request; 0 at the end of the object."""
        view = memoryview(buffer).cast("B")
        end = min(self._at + len(view), self._n_bytes)
        if end <= self._at:
            return 0
        data = self._read_range(self._at, end)
        view[: len(data)] = data
        self._at += len(data)
        return len(data)
