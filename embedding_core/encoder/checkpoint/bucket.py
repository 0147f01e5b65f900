"""A checkpoint in a bucket: listed, and copied to this machine once per version.

A version is the listing itself (names, sizes, ETags), so an unchanged checkpoint costs one listing
and no download. A copy appears complete or not at all, whoever else makes it at the same time.
Keys are opaque: only those that look like a checkpoint's files are joined to a path.
"""

from __future__ import annotations

import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from filelock import FileLock

from embedding_core.encoder.checkpoint.cache import cache_folder
from embedding_core.encoder.checkpoint.latest import (
    LATEST,
    Located,
    newest_of,
    pointed_at,
)
from embedding_core.errors import EmbedlakeError, ModelError, Transient
from embedding_core.identity import digest
from embedding_core.plurals import counted
from embedding_core.store import storage
from embedding_core.store.faults import Fault, fault_of, without_credentials
from embedding_core.store.s3 import Bucket, ObjectVersion, split_uri
from embedding_core.store.storage import StorageSpec

_CHECKPOINT_FILE = re.compile(r"(\d+_\w+/)?\w[\w.-]*\.(safetensors|json|txt|model)")
"""A checkpoint's own files, and those in the folders that sentence-transformers numbers."""


def fetch(uri: str, spec: StorageSpec) -> Located:
    """The checkpoint under an ``s3://`` prefix, copied unless this machine has it.

    Raises ``ModelError`` when there is no checkpoint or it may not be read, ``Transient`` when the
    store does not answer or the checkpoint changes while it is copied.
    """
    store = _Store(uri.rstrip("/"), spec)
    revision = None
    versions = store.objects()
    if not versions and store.uri.endswith(f"/{LATEST}"):
        revision = store.pointed_at()
        store = _Store(store.uri.removesuffix(LATEST) + revision, spec)
        versions = store.objects()
    listed = [version for version in versions if _CHECKPOINT_FILE.fullmatch(version.key)]
    if not listed:
        raise ModelError(
            f"no checkpoint under {store.uri}; name the prefix that holds its config.json, and "
            "model.storage when the bucket is not on plain AWS"
        )
    version = digest(
        [spec.endpoint_url, store.uri, [[o.key, o.size_bytes, o.etag] for o in listed]]
    )
    folder = cache_folder() / "checkpoints" / version
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):  # others on this machine wait instead of copying too
            if not _is_complete(folder, listed):
                _copy(store, listed, folder)
    except OSError as error:
        raise ModelError(
            f"cannot keep a copy of {store.uri} in {folder.parent}: {error}; make room there, or "
            "set HF_HOME to a folder that can be written"
        ) from error
    return Located(folder, revision)


def _is_complete(folder: Path, listed: list[ObjectVersion]) -> bool:
    """Whether every file is there with its size; a damaged copy is made again."""
    paths = [(folder / version.key, version.size_bytes) for version in listed]
    return all(path.is_file() and path.stat().st_size == size for path, size in paths)


def _copy(store: _Store, listed: list[ObjectVersion], folder: Path) -> None:
    partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    try:
        for version in listed:
            target = partial / version.key
            target.parent.mkdir(parents=True, exist_ok=True)
            store.download(version, target)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


class _Store:
    """A prefix of a bucket, and the client that reads it."""

    def __init__(self, uri: str, spec: StorageSpec) -> None:
        self.uri = uri
        self._spec = spec
        name, self._key = split_uri(uri)
        self._bucket = Bucket(name, spec)

    def objects(self) -> list[ObjectVersion]:
        """All that lies under the prefix, sorted by key; keys are those below the prefix."""
        prefix = f"{self._key}/" if self._key else ""
        with self._faults():
            return [
                replace(version, key=version.key.removeprefix(prefix))
                for version in self._bucket.objects(prefix)
            ]

    def pointed_at(self) -> str:
        """Name of the folder that ``latest``, the last part of the prefix, stands for."""
        beside = self._key.removesuffix(LATEST)
        with self._faults():
            try:
                return pointed_at(storage.read_bytes(self.uri, self._spec), self.uri)
            except FileNotFoundError:
                folders = [
                    folder.removeprefix(beside).rstrip("/")
                    for folder in self._bucket.folders(beside)
                ]
        return newest_of(folders, self.uri.removesuffix(f"/{LATEST}"))

    def download(self, version: ObjectVersion, target: Path) -> None:
        """Write the object, as it was listed, to a file."""
        key = f"{self._key}/{version.key}".lstrip("/")
        with target.open("wb") as file, self._faults():
            try:
                self._bucket.download(key, version.etag, file)
            except FileNotFoundError as error:  # it was there when it was listed
                raise Transient(f"{self.uri}/{version.key} is gone; run again") from error
        n_bytes = target.stat().st_size
        if n_bytes != version.size_bytes:
            raise Transient(
                f"{self.uri}/{version.key} broke off after {n_bytes:,} of "
                f"{counted(version.size_bytes, 'byte')}; run again"
            )

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """Raise a ``ModelError`` for what a person must change, ``Transient`` for what may pass."""
        try:
            yield
        except EmbedlakeError:
            raise
        except Exception as error:  # of s3fs, botocore and aiohttp, which share no base
            fault = fault_of(error)
            if fault is Fault.FULL:
                raise
            if fault in (Fault.PASSING, Fault.CHANGED):
                raise Transient(f"cannot read the model {self.uri}: {error}") from error
            raise ModelError(self._refusal(error, fault)) from error

    def _refusal(self, error: Exception, fault: Fault) -> str:
        if (missing := without_credentials(error)) is not None:
            return f"cannot read the model {self.uri}: {missing}"
        if fault is Fault.GONE:
            return (
                f"no bucket {self._bucket.name!r} for the model {self.uri}; correct model.name, or "
                "name its store in model.storage"
            )
        if fault is Fault.DENIED:
            return (
                f"the store refuses to give {self.uri}: {error}; check the credentials "
                "(AWS_ACCESS_KEY_ID, AWS_PROFILE, …) and what they may read"
            )
        return f"the store cannot give {self.uri}: {error}; check model.name and model.storage"
