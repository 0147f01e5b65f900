"""Objects of Google's and Azure's storage, through fsspec's libraries, each an extra.

A fingerprint is an object's size and the checksum that the listing has, else its ETag: no object is
read for it. Who asks and for which account, the libraries take from the environment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

import fsspec

from embedding_core.errors import (
    EmbedlakeError,
    RejectedInput,
    SetupError,
    Transient,
    UsageError,
    words,
)
from embedding_core.reasons import CHANGED, UNREADABLE
from embedding_core.records import SourceFile
from embedding_core.store.faults import Fault, fault_of, fault_of_status
from embedding_core.store.objects import KeyNames, RangedStream
from embedding_core.store.places import Names, Store
from embedding_core.store.retry import never_silent
from embedding_core.store.storage import StorageSpec


@dataclass(frozen=True, slots=True)
class CloudObjects:
    """Objects of one cloud, as fsspec lists and reads them."""

    scheme: str
    """That of its URIs."""
    library: str
    """fsspec's file system: ``module:class``."""
    install: str
    """What to run where the library is missing; empty where fsspec has it."""
    credentials: str
    """Where they come from, in words."""
    options: Callable[[StorageSpec], dict[str, Any]]
    """Arguments of the file system. Raises ``UsageError``."""

    is_read_to_plan = True

    @property
    def schemes(self) -> tuple[str, ...]:
        """See ``Store``."""
        return (self.scheme,)

    def list(self, uri: str, spec: StorageSpec, names: Names) -> Iterator[SourceFile]:
        """See ``Store``. Holds the listing in memory."""
        root, keys = self._path(uri).rstrip("/"), KeyNames(names)
        with self._listing_faults(uri), never_silent(f"list {uri}"):
            fs = self._filesystem(spec)
            single = _object_at(fs, root)
            objects = {root: single} if single else _objects_below(fs, root)
        for path, info in sorted(objects.items()):
            below = path[len(root) + 1 :]
            if single or (not path.endswith("/") and keys.takes(below)):
                yield self._source_file(path, info)

    def open(self, file: SourceFile, spec: StorageSpec) -> RangedStream:
        """See ``Store``. A read does not see that the object changed: ``check_unchanged`` does."""
        with self._reading_faults(), never_silent(f"open {file.uri}"):
            fs = self._filesystem(spec)
        return RangedStream(file.size_bytes, partial(self._read, fs, self._path(file.uri)))

    def check_unchanged(self, file: SourceFile, spec: StorageSpec) -> None:
        """See ``Store``. Asks for the object's checksum once more."""
        path = self._path(file.uri)
        with self._reading_faults(), never_silent(f"look at {file.uri}"):
            info = _object_at(self._filesystem(spec), path)
        if info is None:
            raise RejectedInput(UNREADABLE, "the object is gone")
        if self._source_file(path, info).fingerprint != file.fingerprint:
            raise RejectedInput(CHANGED, "the object changed after it was listed; run again")

    def _filesystem(self, spec: StorageSpec) -> fsspec.AbstractFileSystem:
        module, _, name = self.library.partition(":")
        try:
            kind = getattr(import_module(module), name)
        except ImportError as error:
            raise SetupError(
                f"{self.scheme}:// needs a library that is not there ({words(error)}); run "
                f"{self.install}"
            ) from error
        fs = kind(use_listings_cache=False, **self.options(spec))
        fs.invalidate_cache()
        return fs

    def _path(self, uri: str) -> str:
        return uri.removeprefix(f"{self.scheme}://")

    def _source_file(self, path: str, info: dict[str, Any]) -> SourceFile:
        return SourceFile(
            f"{self.scheme}://{path}", f"{info['size']}-{_checksum(info)}", int(info["size"])
        )

    def _read(self, fs: fsspec.AbstractFileSystem, path: str, start: int, end: int) -> bytes:
        with self._reading_faults(), never_silent(f"read {self.scheme}://{path}"):
            data = bytes(fs.cat_file(path, start=start, end=end))
        if len(data) != end - start:
            raise RejectedInput(CHANGED, "the object became shorter after it was listed; run again")
        return data

    @contextmanager
    def _listing_faults(self, uri: str) -> Iterator[None]:
        try:
            yield
        except EmbedlakeError:
            raise
        except Exception as error:
            if _fault_of(error) is Fault.PASSING:
                raise Transient(f"the store of {uri} does not answer: {words(error)}") from error
            raise SetupError(
                f"cannot list {uri}: {words(error)}; correct source.uri, or check the "
                f"credentials ({self.credentials})"
            ) from error

    @contextmanager
    def _reading_faults(self) -> Iterator[None]:
        try:
            yield
        except EmbedlakeError:
            raise
        except Exception as error:
            if _fault_of(error) is Fault.PASSING:
                raise Transient(f"the store broke off while reading: {words(error)}") from error
            raise RejectedInput(UNREADABLE, words(error)) from error


def _gcs_options(spec: StorageSpec) -> dict[str, Any]:
    endpoint = {"endpoint_url": spec.endpoint_url} if spec.endpoint_url else {}
    return endpoint | ({"token": "anon"} if spec.anonymous else {})


def _azure_options(spec: StorageSpec) -> dict[str, Any]:
    if spec.endpoint_url:
        raise UsageError(
            "source.storage.endpoint_url is not for az://; name the account in "
            "AZURE_STORAGE_ACCOUNT_NAME, or its address in AZURE_STORAGE_CONNECTION_STRING"
        )
    return {"anon": spec.anonymous}


GCS: Store = CloudObjects(
    "gs",
    "gcsfs.core:GCSFileSystem",  # the package's own asks for each bucket's kind over gRPC: a minute
    "pip install 'embedlake[gcs]'",
    "GOOGLE_APPLICATION_CREDENTIALS, `gcloud auth application-default login` or the machine's "
    "service account",
    _gcs_options,
)
AZURE: Store = CloudObjects(
    "az",
    "adlfs:AzureBlobFileSystem",
    "pip install 'embedlake[azure]'",
    "AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, "
    "AZURE_STORAGE_SAS_TOKEN or a login that azure-identity finds",
    _azure_options,
)


def _object_at(fs: fsspec.AbstractFileSystem, path: str) -> dict[str, Any] | None:
    """What the store says of an object; None where there is no object, but perhaps a folder."""
    try:
        info: dict[str, Any] = fs.info(path)
    except FileNotFoundError:
        return None
    return info if info["type"] == "file" else None


def _objects_below(fs: fsspec.AbstractFileSystem, root: str) -> dict[str, dict[str, Any]]:
    """Objects by path. Raises ``FileNotFoundError`` for a bucket that does not exist."""
    objects: dict[str, dict[str, Any]] = fs.find(root, detail=True)
    if not objects:
        fs.ls(root.partition("/")[0])
    files = {path: info for path, info in objects.items() if info["type"] == "file"}
    return {path.lstrip("/"): info for path, info in files.items()}


def _fault_of(error: Exception) -> Fault:
    """Classify an error of Azure's or Google's library by its HTTP status, where it has one."""
    from aiohttp.http_exceptions import HttpProcessingError  # only a cloud needs it loaded

    status = getattr(error, "status_code", None) or getattr(error, "code", None)
    is_broken_off = isinstance(error, HttpProcessingError)  # which calls itself 400
    if isinstance(status, int) and not is_broken_off:
        return fault_of_status(status)
    return fault_of(error)


def _checksum(info: dict[str, Any]) -> str:
    """The checksum of an object's content, else its ETag. Raises ``SetupError`` without any."""
    settings = info.get("content_settings") or {}
    checksum = info.get("md5Hash") or settings.get("content_md5") or info.get("crc32c")
    version = checksum or info.get("etag")
    if version is None:
        raise SetupError(f"the store says neither checksum nor ETag of {info['name']}")
    if isinstance(version, bytes | bytearray):
        return version.hex()
    return str(version).strip('"')
