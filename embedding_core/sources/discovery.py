"""Discovery: the files of a source, sorted, each with the fingerprint of its content."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from embedding_core.errors import SetupError, words
from embedding_core.reasons import UNREADABLE
from embedding_core.recipe import SourceSpec
from embedding_core.records import PassedOver, Reject, SourceFile
from embedding_core.sources.formats.format import suffixes
from embedding_core.sources.opening import fingerprint
from embedding_core.sources.selection import Selection
from embedding_core.sources.template import TextTemplate
from embedding_core.store import storage
from embedding_core.store.s3 import list_objects


@dataclass(frozen=True, slots=True)
class Discovery:
    """What a source holds now."""

    files: tuple[SourceFile, ...]
    """Readable files, sorted by URI."""
    unreadable: tuple[Reject, ...]
    """Files that are there but cannot be read, sorted by URI. A run goes on without them; rows
    the table has of them are kept, because they were not removed from the source."""
    passed_over: PassedOver
    """What else is there."""


def discover(spec: SourceSpec, may_be_empty: bool = False) -> Discovery:
    """List the files of a source that its globs choose.

    A source that is a single file is that file, whatever the globs say. Local files are read once
    for their SHA-256, S3 objects only listed. Raises ``SetupError`` when the source is missing,
    holds no such file (unless it ``may_be_empty``), or a folder in it cannot be listed (its files
    would look removed), and ``Transient`` when a store does not answer.
    """
    TextTemplate.parse(spec.text)  # a wrong template must not wait for the first record
    found = _local(spec) if storage.is_local(spec.uri) else _s3(spec)
    if not may_be_empty and not found.files and not found.unreadable:
        globs = spec.include or [f"**/*{suffix}" for suffix in suffixes()]
        raise SetupError(
            f"nothing to read in {spec.uri}: no file matches {', '.join(globs)} "
            f"({_others(found)}); "
            "correct source.uri, source.include or source.exclude"
        )
    return found


def _others(found: Discovery) -> str:
    others = found.passed_over
    return (
        f"passed over: {others.hidden} names that begin with _ or ., {others.excluded} excluded, "
        f"{others.unmatched} other files"
    )


def _s3(spec: SourceSpec) -> Discovery:
    uri = spec.uri.rstrip("/")
    selection, entered = Selection.of(spec), {"": True}
    chosen = [
        file
        for file in list_objects(uri, spec.storage)
        if file.uri == uri or _is_taken(file.uri[len(uri) + 1 :], selection, entered)
    ]
    files = tuple(sorted(chosen, key=lambda file: file.uri))
    return Discovery(files, (), selection.passed_over)


def _is_taken(key: str, selection: Selection, entered: dict[str, bool]) -> bool:
    """Whether a key is chosen; ``entered`` remembers what was said of each folder."""
    return _is_entered(key.rpartition("/")[0], selection, entered) and selection.takes(key)


def _is_entered(folder: str, selection: Selection, entered: dict[str, bool]) -> bool:
    unknown = []
    while folder not in entered:
        unknown.append(folder)
        folder = folder.rpartition("/")[0]
    for inner in reversed(unknown):
        entered[inner] = entered[folder] and selection.enters(inner)
        folder = inner
    return entered[folder]


def _local(spec: SourceSpec) -> Discovery:
    root = Path(storage.absolute(spec.uri, Path.cwd()))
    if not os.path.lexists(root):
        raise SetupError(f"no source at {root}; create it or correct source.uri")
    selection = Selection.of(spec)
    paths = _walk(root, selection) if root.is_dir() else [root]
    files, unreadable = [], []
    for path in sorted(paths, key=str):
        entry = _readable(path)
        if isinstance(entry, SourceFile):
            files.append(entry)
        else:
            unreadable.append(entry)
    return Discovery(tuple(files), tuple(unreadable), selection.passed_over)


def _readable(path: Path) -> SourceFile | Reject:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        name = os.fsencode(path).decode(errors="backslashreplace")
        return Reject(name, None, None, UNREADABLE.name, "the file's name is not UTF-8; rename it")
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for ever
            return Reject(str(path), None, None, UNREADABLE.name, "not a regular file")
        return fingerprint(path)
    except OSError as error:
        return Reject(str(path), None, None, UNREADABLE.name, words(error))


def _walk(root: Path, selection: Selection) -> Iterator[Path]:
    pending = [(root, "", frozenset([_identity(root)]))]
    while pending:
        folder, relative, above = pending.pop()
        for entry in _entries(folder):
            path, name = folder / entry.name, relative + entry.name
            if not entry.is_dir():
                if selection.takes(name):
                    yield path
            elif selection.enters(name):
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


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino
