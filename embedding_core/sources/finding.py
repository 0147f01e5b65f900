"""One file of a source, found without reading the others."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from embedding_core.errors import SetupError
from embedding_core.recipe import SourceSpec
from embedding_core.records import Reject, SourceFile
from embedding_core.sources.discovery import discover
from embedding_core.sources.selection import Selection
from embedding_core.store.places import place_of


def listed_files(spec: SourceSpec) -> Iterator[SourceFile]:
    """The readable files in the order in which the place lists them, which looks at no later file
    than the last one taken, where it can. Errors as ``discover``, but a source may be empty."""
    for entry in place_of(spec.uri).list(spec.uri, spec.storage, Selection.of(spec)):
        if isinstance(entry, SourceFile):
            yield entry


def first_file(spec: SourceSpec) -> SourceFile:
    """The first readable file that holds something, in the listing's order; else an empty one.

    Errors as ``discover``; also raises ``SetupError`` when no file can be read.
    """
    empty = None
    for file in listed_files(spec):
        if file.size_bytes:
            return file
        empty = empty or file
    if empty is not None:
        return empty
    raise _unreadable(discover(spec).unreadable[0])


def file_named(spec: SourceSpec, name: str) -> SourceFile | None:
    """The file of this URI, or of this path below the source; None when there is no such file.

    A path may also begin further up, as one relative to a folder above the source does. Raises
    ``SetupError`` when the file exists and cannot be read, and when the source is missing.
    """
    path = re.sub(r"\A(\.{1,2}/)+", "", name)
    names = _Named(path, Selection.of(spec))
    for entry in place_of(spec.uri).list(spec.uri, spec.storage, names):
        uri = entry.uri if isinstance(entry, SourceFile) else entry.source_uri
        if uri != name and not uri.endswith(f"/{path}"):
            continue
        if isinstance(entry, Reject):
            raise _unreadable(entry)
        return entry
    return None


@dataclass(frozen=True, slots=True)
class _Named:
    """``Names`` that take one file alone."""

    path: str
    """The file's URI, or the end of it."""
    selection: Selection

    def enters(self, folder: str) -> bool:
        """Whether the file could be in the folder."""
        return f"/{folder}/" in f"/{self.path}" and self.selection.enters(folder)

    def takes(self, file: str) -> bool:
        """Whether this is the file, and the source reads it."""
        return f"/{self.path}".endswith(f"/{file}") and self.selection.takes(file)


def _unreadable(reject: Reject) -> SetupError:
    return SetupError(f"{reject.source_uri} cannot be read: {reject.reason}: {reject.detail}")
