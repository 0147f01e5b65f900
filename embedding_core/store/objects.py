"""What stores of whole objects share: names of a flat listing, and streams of ranged reads."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING

from embedding_core.store.places import Names

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


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
