"""Opening one version of a file: what is read is what was listed, or the file is rejected."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import RawIOBase
from pathlib import Path

from embedding_core.errors import RejectedInput, words
from embedding_core.reasons import CHANGED, UNREADABLE
from embedding_core.recipe import SourceSpec
from embedding_core.records import SourceFile
from embedding_core.store import storage
from embedding_core.store.s3 import S3Object

HASH_BYTES = 1024 * 1024
"""Bytes hashed at a time."""


def fingerprint(path: Path) -> SourceFile:
    """A local file with the size and SHA-256 of its content. Raises ``OSError``."""
    content = hashlib.sha256()
    n_bytes = 0
    with path.open("rb", buffering=0) as stream:
        while piece := stream.read(HASH_BYTES):
            content.update(piece)
            n_bytes += len(piece)
    return SourceFile(str(path), f"{n_bytes}-{content.hexdigest()}", n_bytes)


@contextmanager
def open_unchecked(file: SourceFile, spec: SourceSpec) -> Iterator[RawIOBase]:
    """``open_source`` for a part of the file: that a local file did not change is for the caller to
    ``check_unchanged`` once all parts are read."""
    if not storage.is_local(file.uri):
        with S3Object(file, spec.storage) as remote:
            yield remote
        return
    try:
        with Path(file.uri).open("rb", buffering=0) as stream:
            yield stream
    except OSError as error:
        raise RejectedInput(UNREADABLE, words(error)) from error


def check_unchanged(file: SourceFile) -> None:
    """Raise ``RejectedInput`` when a local file is no longer the fingerprinted one. An object on S3
    was checked with every read."""
    if not storage.is_local(file.uri):
        return
    try:
        now = fingerprint(Path(file.uri))
    except OSError as error:
        raise RejectedInput(UNREADABLE, words(error)) from error
    if now.fingerprint != file.fingerprint:
        raise RejectedInput(CHANGED, "the file changed after it was listed; run again")


@contextmanager
def open_source(file: SourceFile, spec: SourceSpec) -> Iterator[RawIOBase]:
    """The file as an unbuffered, seekable stream.

    Raises ``RejectedInput("unreadable")`` when it cannot be opened or read, and
    ``RejectedInput("changed")`` when its content is not the fingerprinted one: for S3 with the
    read that meets the other version, for a local file after the last read, or when its reader
    finds it damaged.
    """
    try:
        with open_unchecked(file, spec) as stream:
            yield stream
    except RejectedInput:
        check_unchanged(file)  # one that is just being written looks damaged
        raise
    check_unchanged(file)
