"""A checkpoint in a bucket: listed, and copied to this machine once per version.

A version is the listing itself (names, sizes, ETags), so an unchanged checkpoint costs one listing
and no download. A copy appears complete or not at all, whoever else makes it at the same time.
Keys are opaque: only those that look like a checkpoint's files are joined to a path.
"""

from __future__ import annotations

import errno
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock
from fsspec.asyn import sync

from embedding_core.encoder.checkpoint.cache import cache_folder
from embedding_core.encoder.checkpoint.latest import (
    LATEST,
    Located,
    newest_of,
    pointed_at,
)
from embedding_core.errors import EmbedlakeError, ModelError, Transient
from embedding_core.identity import digest
from embedding_core.store import storage
from embedding_core.store.storage import StorageSpec

_WANTED = re.compile(r"(\d+_\w+/)?\w[\w.-]*\.(safetensors|json|txt|model)")
"""A checkpoint's own files, and those in the folders that sentence-transformers numbers."""
_CHUNK_BYTES = 4 * 1024 * 1024
_MAY_PASS = (408, 412, 429)
"""Client errors that another try may not meet: timed out, changed meanwhile, too many requests."""
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@dataclass(frozen=True, slots=True)
class _Object:
    name: str
    """Its key after the checkpoint's own prefix."""
    size_bytes: int
    etag: str


def fetch(uri: str, spec: StorageSpec) -> Located:
    """The checkpoint under an ``s3://`` prefix, copied unless this machine has it.

    Raises ``ModelError`` when there is none or it may not be read, ``Transient`` when the store
    does not answer or the checkpoint changes while it is copied.
    """
    store = _Store(uri.rstrip("/"), spec)
    revision = None
    found = store.objects()
    if not found and store.uri.endswith(f"/{LATEST}"):
        revision = store.pointed_at()
        store = _Store(store.uri.removesuffix(LATEST) + revision, spec)
        found = store.objects()
    listed = [one for one in found if _WANTED.fullmatch(one.name)]
    if not listed:
        raise ModelError(
            f"no checkpoint under {store.uri}; name the prefix that holds its config.json, and "
            "model.storage when the bucket is not on plain AWS"
        )
    version = digest(
        [spec.endpoint_url, store.uri, [[o.name, o.size_bytes, o.etag] for o in listed]]
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


def _is_complete(folder: Path, listed: list[_Object]) -> bool:
    """Whether every file is there with its size; a copy that someone damaged is made anew."""
    paths = [(folder / one.name, one.size_bytes) for one in listed]
    return all(path.is_file() and path.stat().st_size == size for path, size in paths)


def _copy(store: _Store, listed: list[_Object], folder: Path) -> None:
    partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    try:
        for one in listed:
            target = partial / one.name
            target.parent.mkdir(parents=True, exist_ok=True)
            store.download(one, target)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


class _Store:
    """A prefix of a bucket, and the client that reads it."""

    def __init__(self, uri: str, spec: StorageSpec) -> None:
        self.uri = uri
        self._bucket, _, self._key = uri.removeprefix("s3://").partition("/")
        self._fs = storage.filesystem(uri, spec)

    def objects(self) -> list[_Object]:
        """All that lies under the prefix, sorted by name."""
        prefix = f"{self._key}/" if self._key else ""
        found = [
            _Object(entry["Key"].removeprefix(prefix), entry["Size"], entry["ETag"])
            for page in self._pages(Prefix=prefix)
            for entry in page.get("Contents", ())
        ]
        return sorted(found, key=lambda one: one.name)

    def pointed_at(self) -> str:
        """Name of the folder that ``latest``, the last part of the prefix, stands for."""
        with self._faults():
            try:
                return pointed_at(bytes(self._fs.cat_file(self.uri)), self.uri)
            except FileNotFoundError:
                pass
        beside = self._key.removesuffix(LATEST)
        folders = [
            one["Prefix"].removeprefix(beside).rstrip("/")
            for page in self._pages(Prefix=beside, Delimiter="/")
            for one in page.get("CommonPrefixes", ())
        ]
        return newest_of(folders, self.uri.removesuffix(f"/{LATEST}"))

    def download(self, one: _Object, target: Path) -> None:
        """Write the object, as it was listed, to a file."""
        key = f"{self._key}/{one.name}".lstrip("/")
        with target.open("wb") as file, self._faults():
            try:
                sync(self._fs.loop, self._stream, key, one.etag, file)
            except FileNotFoundError as error:  # it was there when it was listed
                raise Transient(f"{self.uri}/{one.name} is gone; run again") from error
        found = target.stat().st_size
        if found != one.size_bytes:
            raise Transient(
                f"{self.uri}/{one.name} broke off after {found:,} of {one.size_bytes:,} bytes; "
                "run again"
            )

    async def _stream(self, key: str, etag: str, file: BinaryIO) -> None:
        answer = await self._fs._call_s3("get_object", Bucket=self._bucket, Key=key, IfMatch=etag)
        async with answer["Body"] as body:
            while data := await body.read(_CHUNK_BYTES):
                file.write(data)

    def _pages(self, **parameters: str) -> Iterator[dict[str, Any]]:
        where: dict[str, str] = {}
        while True:
            with self._faults():
                page = self._fs.call_s3(
                    "list_objects_v2", Bucket=self._bucket, **parameters, **where
                )
            yield page
            if not page.get("IsTruncated"):
                return
            where = {"ContinuationToken": page["NextContinuationToken"]}

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """What a person must change is a ``ModelError``, what may pass ``Transient``."""
        try:
            yield
        except FileNotFoundError as error:
            raise ModelError(
                f"no bucket {self._bucket!r} for the model {self.uri}; correct model.name, or name "
                "its store in model.storage"
            ) from error
        except PermissionError as error:
            raise ModelError(
                f"the store refuses to give {self.uri}: {error}; check the credentials "
                "(AWS_ACCESS_KEY_ID, AWS_PROFILE, …) and what they may read"
            ) from error
        except EmbedlakeError:
            raise
        except Exception as error:  # of s3fs, botocore and aiohttp, which share no base
            if (missing := storage.without_credentials(error)) is not None:
                raise ModelError(f"cannot read the model {self.uri}: {missing}") from error
            if isinstance(error, OSError) and error.errno in _NO_ROOM:
                raise
            if _is_final(error):
                raise ModelError(
                    f"the store cannot give {self.uri}: {error}; check model.name and model.storage"
                ) from error
            raise Transient(f"cannot read the model {self.uri}: {error}") from error


def _is_final(error: Exception) -> bool:
    """Whether the store said that the request itself is wrong; else another try may succeed."""
    answer = getattr(error.__cause__, "response", None) or getattr(error, "response", None) or {}
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode") or 500
    return 400 <= status < 500 and status not in _MAY_PASS
