"""Objects of S3 buckets: the client, and the store that sources are read from.

Keys are opaque: they may hold ``..``, ``//``, ``%2f``, ``?`` or spaces, so they travel as request
parameters and are never joined to, split from or normalised as a path.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO

from fsspec.asyn import sync

from embedding_core.errors import EmbedlakeError, RejectedInput, SetupError, Transient, words
from embedding_core.reasons import CHANGED, UNREADABLE
from embedding_core.records import SourceFile
from embedding_core.store import storage
from embedding_core.store.faults import Fault, fault_of, without_credentials
from embedding_core.store.objects import KeyNames, Paging, RangedStream
from embedding_core.store.places import Names, Store
from embedding_core.store.retry import never_silent
from embedding_core.store.storage import StorageSpec

DOWNLOAD_BYTES = 4 * 1024 * 1024
"""Bytes in memory at a time while an object is copied."""


def split_uri(uri: str) -> tuple[str, str]:
    """Bucket and key of ``s3://bucket/key``; the key as it is, possibly empty."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


@dataclass(frozen=True, slots=True)
class ObjectVersion:
    """An object as a listing shows it."""

    key: str
    size_bytes: int
    etag: str


class Bucket:
    """The client of a bucket. Errors come as s3fs and botocore raise them: see ``fault_of``."""

    def __init__(self, name: str, spec: StorageSpec) -> None:
        self.name = name
        self._fs = storage.filesystem(f"s3://{name}", spec)

    def objects(self, prefix: str, **parameters: int) -> Iterator[ObjectVersion]:
        """Every object whose key begins so, sorted by key."""
        for page in self._pages(Prefix=prefix, **parameters):
            for entry in page.get("Contents", ()):
                yield ObjectVersion(entry["Key"], entry["Size"], entry["ETag"].strip('"'))

    def folders(self, prefix: str) -> Iterator[str]:
        """Keys up to the first ``/`` after the prefix, each once."""
        for page in self._pages(Prefix=prefix, Delimiter="/"):
            for entry in page.get("CommonPrefixes", ()):
                yield entry["Prefix"]

    def read(self, key: str, etag: str, start: int, end: int) -> bytes:
        """Some bytes of one version of an object."""
        with never_silent(f"read s3://{self.name}/{key}"):
            data: bytes = sync(self._fs.loop, self._read, key, etag, f"bytes={start}-{end - 1}")
        return data

    def download(self, key: str, etag: str, target: BinaryIO) -> None:
        """Copy one version of an object into an open file."""
        with never_silent(f"copy s3://{self.name}/{key}"):
            sync(self._fs.loop, self._download, key, etag, target)

    def delete(self, key: str) -> None:
        """Delete an object; without one, nothing happens."""
        self._fs.call_s3("delete_object", Bucket=self.name, Key=key)

    def date(self) -> str | None:
        """The store's clock: the ``Date`` of an answer or of a refusal; None without either."""
        try:
            answer = self._fs.call_s3("list_objects_v2", Bucket=self.name, MaxKeys=1)
        except Exception as error:  # noqa: BLE001  s3fs has an error of its own for each refusal
            answer = getattr(_first_cause(error), "response", {})
        headers: dict[str, str] = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        return headers.get("date")

    def _pages(self, **parameters: object) -> Iterator[dict[str, Any]]:
        continued: dict[str, str] = {}
        paging = Paging(
            f"bucket {self.name!r}", "check the endpoint of its storage, and what stands before it"
        )
        while True:
            with never_silent(f"list bucket {self.name!r}"):
                page: dict[str, Any] = self._fs.call_s3(
                    "list_objects_v2", Bucket=self.name, **parameters, **continued
                )
            token = page["NextContinuationToken"] if page.get("IsTruncated") else None
            paging.add(_names(page), token)
            yield page
            if token is None:
                return
            continued = {"ContinuationToken": token}

    async def _read(self, key: str, etag: str, bytes_range: str) -> bytes:
        answer = await self._fs._call_s3(
            "get_object", Bucket=self.name, Key=key, Range=bytes_range, IfMatch=etag
        )
        async with answer["Body"] as body:
            data: bytes = await body.read()
        return data

    async def _download(self, key: str, etag: str, target: BinaryIO) -> None:
        answer = await self._fs._call_s3("get_object", Bucket=self.name, Key=key, IfMatch=etag)
        async with answer["Body"] as body:
            while data := await body.read(DOWNLOAD_BYTES):
                target.write(data)


class S3Objects:
    """Objects of a bucket. A fingerprint is an object's size and ETag: no object is read for it."""

    schemes = ("s3",)
    is_read_to_plan = True

    def list(self, uri: str, spec: StorageSpec, names: Names) -> Iterator[SourceFile]:
        """See ``Store``. A key that ends with ``/`` is a folder marker, not a file."""
        uri = uri.rstrip("/")
        name, key = split_uri(uri)
        bucket, keys, is_empty = Bucket(name, spec), KeyNames(names), True
        with _listing_faults(name):
            for version in bucket.objects(f"{key}/" if key else ""):
                is_empty = False
                below = version.key[len(key) + bool(key) :]
                if not version.key.endswith("/") and keys.takes(below):
                    yield _source_file(name, version)
            if is_empty and key:
                # Its own key sorts first among all that begin so: a page of one entry is enough.
                first = next(bucket.objects(key, MaxKeys=1), None)
                if first is not None and first.key == key:
                    yield _source_file(name, first)

    def open(self, file: SourceFile, spec: StorageSpec) -> RangedStream:
        """See ``Store``. Every read asks for the listed ETag, so a stream never mixes two versions.
        Raises ``SetupError`` where this process has no credentials."""
        name, key = split_uri(file.uri)
        etag = file.fingerprint.partition("-")[2]
        return RangedStream(file.size_bytes, partial(_read, Bucket(name, spec), key, etag))

    def check_unchanged(self, file: SourceFile, spec: StorageSpec) -> None:
        """See ``Store``: every read checked it."""


S3: Store = S3Objects()


def _names(page: Mapping[str, Any]) -> list[str]:
    """Keys and folders of a page of a listing."""
    folders = [entry["Prefix"] for entry in page.get("CommonPrefixes", ())]
    return [entry["Key"] for entry in page.get("Contents", ())] + folders


def _first_cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _source_file(bucket: str, version: ObjectVersion) -> SourceFile:
    uri = f"s3://{bucket}/{version.key}"
    return SourceFile(uri, f"{version.size_bytes}-{version.etag}", version.size_bytes)


def _read(bucket: Bucket, key: str, etag: str, start: int, end: int) -> bytes:
    try:
        return bucket.read(key, etag, start, end)
    except Exception as error:
        raise _read_error(error, bucket.name) from error


@contextmanager
def _listing_faults(bucket: str) -> Iterator[None]:
    try:
        yield
    except EmbedlakeError:
        raise
    except Exception as error:
        raise _listing_error(error, bucket) from error


def _listing_error(error: Exception, bucket: str) -> EmbedlakeError:
    if (missing := without_credentials(error)) is not None:
        return SetupError(f"cannot list bucket {bucket!r}: {missing}")
    fault = fault_of(error)
    if fault is Fault.GONE:
        return SetupError(f"no bucket {bucket!r} there; correct source.uri or create the bucket")
    if fault is Fault.DENIED:
        return SetupError(
            f"the store refuses to list bucket {bucket!r}: {words(error)}; check the credentials "
            "(AWS_ACCESS_KEY_ID, AWS_PROFILE, …) and what they may read"
        )
    if fault is Fault.PASSING:
        return Transient(f"the store of bucket {bucket!r} does not answer: {words(error)}")
    return SetupError(
        f"cannot list bucket {bucket!r}: {words(error)}; check source.uri and its storage"
    )


def _read_error(error: Exception, bucket: str) -> EmbedlakeError:
    if (missing := without_credentials(error)) is not None:
        return SetupError(f"cannot read from bucket {bucket!r}: {missing}")
    fault = fault_of(error)
    if fault is Fault.CHANGED:
        return RejectedInput(CHANGED, "the object changed after it was listed; run again")
    if fault is Fault.PASSING:
        return Transient(f"the store broke off while reading: {words(error)}")
    return RejectedInput(UNREADABLE, words(error))
