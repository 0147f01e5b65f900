"""Check that a store refuses to overwrite an object. Lance commits depend on it.

On a store that ignores ``If-None-Match`` two writers both believe they made the next version and
rows are lost without an error. So the refusal is tried before a table is made.
"""

from __future__ import annotations

import logging
import tempfile
import uuid
from pathlib import Path

from embedding_core.errors import LakeError, words
from embedding_core.store import layout, storage
from embedding_core.store.s3 import Bucket, split_uri
from embedding_core.store.storage import StorageSpec

log = logging.getLogger(__name__)


def check_writable(uri: str, spec: StorageSpec) -> None:
    """Raise ``LakeError`` unless tables can be written under ``uri``, which need not exist yet.

    Includes ``check_conditional_put``. On a local disk a folder is made and removed again: what
    permissions say is not enough where nobody can write, as below ``/proc``.
    """
    check_conditional_put(uri, spec)
    if storage.is_local(uri):
        _check_folder(Path(uri))


def check_conditional_put(uri: str, spec: StorageSpec) -> None:
    """Raise ``LakeError`` unless the S3 store under ``uri`` honours ``If-None-Match: *``.

    Local folders pass: the operating system creates a file exclusively.
    """
    if storage.is_local(uri):
        return
    probe = layout.probe_path(uri, uuid.uuid4().hex)
    try:
        storage.create_bytes(probe, b"1", spec)
        is_overwritten = storage.create_bytes(probe, b"2", spec)
    except OSError as error:
        raise LakeError(
            f"cannot write to {uri}: {error}; check the bucket, the endpoint "
            "(lake.storage.endpoint_url) and the AWS credentials in the environment"
        ) from error
    finally:
        _delete(probe, spec)
    if is_overwritten:
        raise ignores_conditions(uri)


def ignores_conditions(uri: str) -> LakeError:
    """The error for a store that overwrites what must not be overwritten."""
    return LakeError(
        f"the store of {uri} ignores If-None-Match, so two writers would overwrite each "
        "other's commits; use a store with conditional writes (AWS S3, MinIO, SeaweedFS, R2)"
    )


def _check_folder(folder: Path) -> None:
    nearest = folder
    try:
        while not nearest.exists():
            nearest = nearest.parent
        with tempfile.TemporaryDirectory(prefix=".embedlake-probe-", dir=nearest):
            pass
    except OSError as error:
        raise LakeError(
            f"{nearest} cannot be written ({words(error)}); correct its permissions or how it is "
            "mounted, make room, or name another lake.uri"
        ) from error


def _delete(probe: str, spec: StorageSpec) -> None:
    bucket, key = split_uri(probe)
    try:
        Bucket(bucket, spec).delete(key)
    except Exception as error:  # noqa: BLE001  the answer is known; an object of a byte may stay
        log.warning("%s stays: %s", probe, words(error))
