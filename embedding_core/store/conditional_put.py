"""Does the store refuse to overwrite when asked to? Lance commits depend on it.

On a store that ignores ``If-None-Match`` two writers both believe they made the next version and
rows are lost without an error. So it is tried once, before a table is made.
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path

from botocore.exceptions import BotoCoreError, ClientError

from embedding_core.errors import LakeError
from embedding_core.store import storage
from embedding_core.store.storage import StorageSpec

PRECONDITION_FAILED = 412


def check_writable(uri: str, spec: StorageSpec) -> None:
    """``check_conditional_put``, and for a local folder that it can be written; it need not exist.

    Writes nothing on a local disk. Raises ``LakeError`` when it cannot be written.
    """
    check_conditional_put(uri, spec)
    if storage.is_local(uri):
        folder = Path(uri)
        nearest = next(one for one in (folder, *folder.parents) if one.exists())
        if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
            raise LakeError(
                f"{nearest} cannot be written; correct its permissions or how it is mounted, or "
                "name another lake.uri"
            )


def check_conditional_put(uri: str, spec: StorageSpec) -> None:
    """Raise ``LakeError`` unless the S3 store under ``uri`` honours ``If-None-Match: *``.

    Local folders pass: the operating system creates a file exclusively.
    """
    if storage.is_local(uri):
        return
    fs = storage.filesystem(uri, spec)
    key = storage.join(uri, "_embedlake", f"probe-{uuid.uuid4().hex}")
    bucket, _, name = key.removeprefix("s3://").partition("/")
    try:
        fs.call_s3("put_object", Bucket=bucket, Key=name, Body=b"1", IfNoneMatch="*")
        overwritten = _overwrites(fs, bucket, name)
    except (OSError, BotoCoreError, ClientError) as error:
        raise LakeError(
            f"cannot write to {uri}: {error}; check the bucket, the endpoint "
            "(lake.storage.endpoint_url) and the AWS credentials in the environment"
        ) from error
    finally:
        _forget(fs, bucket, name)
    if overwritten:
        raise LakeError(
            f"the store of {uri} ignores If-None-Match, so two writers would overwrite each "
            "other's commits; use a store with conditional writes (AWS S3, MinIO, SeaweedFS, R2)"
        )


def _overwrites(fs: object, bucket: str, name: str) -> bool:
    try:
        fs.call_s3("put_object", Bucket=bucket, Key=name, Body=b"2", IfNoneMatch="*")  # type: ignore[attr-defined]
    except (OSError, ClientError) as error:
        return not _is_precondition(error)
    return True


def _is_precondition(error: BaseException) -> bool:
    response = getattr(error, "response", None) or getattr(error.__cause__, "response", None) or {}
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return bool(status == PRECONDITION_FAILED)


def _forget(fs: object, bucket: str, name: str) -> None:
    try:
        fs.call_s3("delete_object", Bucket=bucket, Key=name)  # type: ignore[attr-defined]
    except (OSError, BotoCoreError, ClientError):
        return  # a probe object of one byte may stay; the answer is known
