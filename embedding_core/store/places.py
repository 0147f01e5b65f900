"""Places that sources are read from: a store for each scheme of a URI."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from io import RawIOBase
from typing import Protocol

from embedding_core.errors import UsageError
from embedding_core.records import Reject, SourceFile
from embedding_core.registry import STORES, Registry
from embedding_core.store.storage import StorageSpec, scheme_of


class Names(Protocol):
    """Which names below a source are read (``sources.selection``)."""

    def enters(self, folder: str) -> bool:
        """Whether to look into a folder, by its path below the source."""
        ...

    def takes(self, file: str) -> bool:
        """Whether to read a file of a folder that was entered, by its path below the source."""
        ...


class Store(Protocol):
    """A place. Raises ``SetupError``, ``Transient`` or ``RejectedInput``: faults are classified."""

    @property
    def schemes(self) -> tuple[str, ...]:
        """Schemes of its URIs, without ``://``; ``""`` is a local path."""
        ...

    @property
    def is_read_to_plan(self) -> bool:
        """Whether ``plan`` may read records of a few files, for its estimate; a run always may."""
        ...

    def list(self, uri: str, spec: StorageSpec, names: Names) -> Iterator[SourceFile | Reject]:
        """Every file that ``names`` takes, in any order; a reject for each that cannot be read.

        A source that is a single file is that file, whatever ``names`` say.
        """
        ...

    def open(self, file: SourceFile, spec: StorageSpec) -> AbstractContextManager[RawIOBase]:
        """The file as an unbuffered, seekable stream.

        Raises ``RejectedInput`` with ``UNREADABLE``, or with ``CHANGED`` where a read meets another
        version than the listed one.
        """
        ...

    def check_unchanged(self, file: SourceFile, spec: StorageSpec) -> None:
        """Raise ``RejectedInput`` when the file is no longer the listed one; nothing where every
        read checks that already."""
        ...


PLACES = Registry[Store](
    STORES,
    {
        "local": "embedding_core.store.local:LOCAL",
        "s3": "embedding_core.store.s3:S3",
        "hub": "embedding_core.store.hub:HUB",
        "web": "embedding_core.store.web:WEB",
        "gcs": "embedding_core.store.clouds:GCS",
        "azure": "embedding_core.store.clouds:AZURE",
    },
    Store,
)


def place_of(uri: str) -> Store:
    """The store of a URI's scheme. Raises ``UsageError`` with the schemes there are."""
    scheme, stores = scheme_of(uri), PLACES.working().values()
    for store in stores:
        if scheme in store.schemes:
            return store
    schemes = [name for store in stores for name in store.schemes if name not in ("", "file")]
    problems = "".join(f"; {problem}" for problem in PLACES.problems())
    raise UsageError(
        f"cannot read {uri!r}: the scheme {scheme!r} is not supported; use a local path or "
        f"{', '.join(f'{name}://' for name in schemes)}{problems}"
    )
