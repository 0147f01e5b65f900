"""Objects of an S3 bucket: listing, reading one version, and what its errors mean.

Keys are opaque: they may hold ``..``, ``//``, ``%2f``, ``?`` or spaces, so they travel as request
parameters and are never joined to, split from or normalised as a path.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from botocore.exceptions import (
    BotoCoreError,
    EndpointConnectionError,
    HTTPClientError,
)
from fsspec.asyn import sync

from embedding_core.errors import EmbedlakeError, RejectedInput, SetupError, Transient, words
from embedding_core.reasons import CHANGED, UNREADABLE
from embedding_core.records import SourceFile
from embedding_core.store import storage
from embedding_core.store.storage import StorageSpec

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_CREDENTIALS = "check the credentials (AWS_ACCESS_KEY_ID, AWS_PROFILE, …) and what they may read"


def split_uri(uri: str) -> tuple[str, str]:
    """Bucket and key of ``s3://bucket/key``; the key as it is, possibly empty."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def list_objects(uri: str, spec: StorageSpec) -> Iterator[SourceFile]:
    """Every object under a folder URI, or the one object the URI names.

    A key that ends with ``/`` is a folder marker, not a file. Fingerprints are size and ETag of
    the listing: nothing is read. Raises ``SetupError`` for a bucket that is not there or not
    ours, ``Transient`` when the store does not answer.
    """
    bucket, key = split_uri(uri)
    found = False
    for entry in _listing(bucket, f"{key}/" if key else "", spec):
        found = True
        if not entry["Key"].endswith("/"):
            yield _source_file(bucket, entry)
    if not found and key:
        yield from _one_object(bucket, key, spec)


def _listing(bucket: str, prefix: str, spec: StorageSpec) -> Iterator[dict[str, Any]]:
    where: dict[str, str] = {}
    while True:
        page = _call(spec, bucket, "list_objects_v2", Bucket=bucket, Prefix=prefix, **where)
        yield from page.get("Contents", ())
        if not page.get("IsTruncated"):
            return
        where = {"ContinuationToken": page["NextContinuationToken"]}


def _one_object(bucket: str, key: str, spec: StorageSpec) -> Iterator[SourceFile]:
    # Its own key sorts first among all that start with it, so a page of one entry is enough.
    page = _call(spec, bucket, "list_objects_v2", Bucket=bucket, Prefix=key, MaxKeys=1)
    for entry in page.get("Contents", ()):
        if entry["Key"] == key:
            yield _source_file(bucket, entry)


def _source_file(bucket: str, entry: dict[str, Any]) -> SourceFile:
    etag = entry["ETag"].strip('"')
    return SourceFile(f"s3://{bucket}/{entry['Key']}", f"{entry['Size']}-{etag}", entry["Size"])


def _call(spec: StorageSpec, bucket: str, method: str, **parameters: object) -> dict[str, Any]:
    fs = storage.filesystem(f"s3://{bucket}", spec)
    try:
        answer: dict[str, Any] = fs.call_s3(method, **parameters)
    except Exception as error:
        raise _listing_error(error, bucket) from error
    return answer


class S3Object(io.RawIOBase):
    """One version of an object as a seekable stream of ranged reads.

    Every read asks for the listed ETag, so a stream never mixes two versions. Raises
    ``RejectedInput`` when the object is gone, changed or refused, ``SetupError`` where this
    process has no credentials, ``Transient`` otherwise.
    """

    def __init__(self, file: SourceFile, spec: StorageSpec) -> None:
        super().__init__()
        self._fs = storage.filesystem(file.uri, spec)
        self._bucket, self._key = split_uri(file.uri)
        self._etag = file.fingerprint.partition("-")[2]
        self._n_bytes = file.size_bytes
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
        try:
            data = sync(self._fs.loop, self._fetch, self._at, end)
        except Exception as error:
            raise _read_error(error, self._bucket) from error
        view[: len(data)] = data
        self._at += len(data)
        return len(data)

    async def _fetch(self, start: int, end: int) -> bytes:
        answer = await self._fs._call_s3(
            "get_object",
            Bucket=self._bucket,
            Key=self._key,
            Range=f"bytes={start}-{end - 1}",
            IfMatch=self._etag,
        )
        async with answer["Body"] as body:
            data: bytes = await body.read()
        return data


def _listing_error(error: Exception, bucket: str) -> EmbedlakeError:
    if isinstance(error, FileNotFoundError):
        return SetupError(f"no bucket {bucket!r} there; correct source.uri or create the bucket")
    if (missing := storage.without_credentials(error)) is not None:
        return SetupError(f"cannot list bucket {bucket!r}: {missing}")
    if isinstance(error, PermissionError):
        return SetupError(
            f"the store refuses to list bucket {bucket!r}: {words(error)}; {_CREDENTIALS}"
        )
    if _may_pass(error):
        return Transient(f"the store of bucket {bucket!r} does not answer: {words(error)}")
    return SetupError(
        f"cannot list bucket {bucket!r}: {words(error)}; check source.uri and its storage"
    )


def _read_error(error: Exception, bucket: str) -> EmbedlakeError:
    if _status(error) == 412:
        return RejectedInput(CHANGED, "the object changed after it was listed; run again")
    if (missing := storage.without_credentials(error)) is not None:
        return SetupError(f"cannot read from bucket {bucket!r}: {missing}")
    if isinstance(error, FileNotFoundError | PermissionError) or not _may_pass(error):
        return RejectedInput(UNREADABLE, words(error))
    return Transient(f"the store broke off while reading: {words(error)}")


def _may_pass(error: Exception) -> bool:
    """Whether another try may succeed: the store was not reached, or said so by its status."""
    status = _status(error)
    if status is not None:
        return status >= 500 or status in (408, 429)
    if isinstance(error, BotoCoreError):
        return isinstance(error, EndpointConnectionError | HTTPClientError)
    return not isinstance(error, ValueError | TypeError)


def _status(error: Exception) -> int | None:
    """The HTTP status behind an error of s3fs, when the store answered at all."""
    response = getattr(error.__cause__, "response", None) or getattr(error, "response", None)
    if not isinstance(response, dict):
        return None
    status: int | None = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return status
