"""Files on this machine. A fingerprint is a file's size and the SHA-256 of its content.

A file's version is what the system says of it: while number, size and times are the same, so is the
content, unless the file was changed in the same moment in which it was listed.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import RawIOBase
from pathlib import Path

from embedding_core.errors import RejectedInput, SetupError, words
from embedding_core.reasons import CHANGED, UNREADABLE
from embedding_core.records import Reject, SourceFile
from embedding_core.store import storage
from embedding_core.store.places import Names, Store
from embedding_core.store.storage import StorageSpec

HASH_BYTES = 1024 * 1024
"""Bytes hashed at a time."""
SETTLED_SECONDS = 5.0
"""Age at which a file's times tell its versions apart: some file systems count seconds."""


class LocalFiles:
    """Folders and files; links are followed."""

    schemes = ("", "file")
    is_read_to_plan = True

    def list(self, uri: str, spec: StorageSpec, names: Names) -> Iterator[SourceFile | Reject]:
        """See ``Store``. Reads every file once, for its SHA-256."""
        root = Path(storage.absolute(uri, Path.cwd()))
        if not os.path.lexists(root):
            raise SetupError(f"no source at {root}; create it or correct source.uri")
        paths = _walk(root, names) if root.is_dir() else [root]
        return map(_listed, sorted(paths, key=str))

    @contextmanager
    def open(self, file: SourceFile, spec: StorageSpec) -> Iterator[RawIOBase]:
        """See ``Store``."""
        try:
            with Path(file.uri).open("rb", buffering=0) as stream:
                yield stream
        except OSError as error:
            raise RejectedInput(UNREADABLE, words(error)) from error

    def check_unchanged(self, file: SourceFile, spec: StorageSpec) -> None:
        """See ``Store``. Reads the file once more, unless the system says that nobody wrote it."""
        try:
            if file.version and file.version == _version(Path(file.uri).stat()):
                return
            now = _fingerprinted(Path(file.uri))
        except OSError as error:
            raise RejectedInput(UNREADABLE, words(error)) from error
        if now.fingerprint != file.fingerprint:
            raise RejectedInput(CHANGED, "the file changed after it was listed; run again")


LOCAL: Store = LocalFiles()


def _fingerprinted(path: Path) -> SourceFile:
    """A file with the size and SHA-256 of its content, and without a version if it was written
    just now. Raises ``OSError``."""
    content = hashlib.sha256()
    n_bytes = 0
    with path.open("rb", buffering=0) as stream:
        status = os.fstat(stream.fileno())
        while block := stream.read(HASH_BYTES):
            content.update(block)
            n_bytes += len(block)
    age_seconds = time.time() - max(status.st_mtime, status.st_ctime)
    version = _version(status) if age_seconds > SETTLED_SECONDS else ""
    return SourceFile(str(path), f"{n_bytes}-{content.hexdigest()}", n_bytes, version)


def _version(status: os.stat_result) -> str:
    numbers = (status.st_dev, status.st_ino, status.st_size)
    return "-".join(map(str, (*numbers, status.st_mtime_ns, status.st_ctime_ns)))


def _listed(path: Path) -> SourceFile | Reject:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        name = os.fsencode(path).decode(errors="backslashreplace")
        return _unreadable(name, "the file's name is not UTF-8; rename it")
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for ever
            return _unreadable(str(path), "not a regular file")
        return _fingerprinted(path)
    except OSError as error:
        return _unreadable(str(path), words(error))


def _unreadable(uri: str, detail: str) -> Reject:
    return Reject(uri, None, None, UNREADABLE.name, detail)


def _walk(root: Path, names: Names) -> Iterator[Path]:
    pending = [(root, "", frozenset([_identity(root)]))]
    while pending:
        folder, relative, above = pending.pop()
        for entry in _entries(folder):
            path, name = folder / entry.name, relative + entry.name
            if not _is_folder(entry):
                if names.takes(name):
                    yield path
            elif names.enters(name):
                inside = _identity(path)
                if inside not in above:  # a link to a folder above would never end
                    pending.append((path, name + "/", above | {inside}))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise SetupError(
            f"cannot list the folder {folder}: {words(error)}; make it readable or move it away"
        ) from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """False too for a link that leads nowhere or to itself: whoever reads it says why."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino
