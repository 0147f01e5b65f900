"""Files by URI: a local path or ``s3://bucket/key``, through fsspec and s3fs.

Knows how to reach a store, not what is in it. Credentials come from where every AWS client finds
them (environment, profile, instance role) and are never part of a recipe; a recipe may name the
endpoint and the region.
"""

from __future__ import annotations

import contextlib
import os
import re
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fsspec
from pydantic import BaseModel, ConfigDict, field_validator

from embedding_core.errors import UsageError, words
from embedding_core.redaction import redacted, secret_in
from embedding_core.store.faults import Fault, fault_of, without_credentials
from embedding_core.store.retry import never_silent

SCHEMES = ("", "file", "s3")

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


NO_SECRETS = (
    "remove it, since recipes and tables are kept and shown: credentials come from the environment "
    "(AWS_ACCESS_KEY_ID, AWS_PROFILE, HF_TOKEN, EMBEDLAKE_ENGINE_TOKEN), from a role of the "
    "machine, or from ~/.netrc"
)


def without_secret(uri: str) -> str:
    """The URI. Raises ``ValueError``, in words that do not repeat it, for one with a secret."""
    if (secret := secret_in(uri)) is not None:
        raise ValueError(f"the URL {secret}; {NO_SECRETS}")
    return uri


class StorageSpec(BaseModel):
    """How to reach a store; not needed for AWS itself, the public hub or a local folder."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, hide_input_in_errors=True
    )

    endpoint_url: str | None = None
    """Address of an S3-compatible store or of a hub, for example ``http://127.0.0.1:8333``."""
    region: str | None = None
    """Region of the bucket."""
    anonymous: bool = False
    """Send requests without credentials (public buckets and datasets)."""

    @field_validator("endpoint_url")
    @classmethod
    def _without_secrets(cls, url: str | None) -> str | None:
        return url if url is None else without_secret(url)


def scheme_of(uri: str) -> str:
    """The scheme of a URI; ``""`` for a local path."""
    match = _SCHEME.match(uri)
    return match.group(1) if match else ""


def is_local(uri: str) -> bool:
    """Whether the URI is a path on this machine; refuses one that is neither that nor on S3, and
    one that holds a secret."""
    if (secret := secret_in(uri)) is not None:
        raise UsageError(f"{redacted(uri)} {secret}; {NO_SECRETS}")
    scheme = scheme_of(uri)
    if scheme not in SCHEMES:
        raise UsageError(
            f"cannot read {uri!r}: the scheme {scheme!r} is not supported; "
            "use a local path or s3://bucket/prefix"
        )
    return scheme != "s3"


def absolute(uri: str, base: Path) -> str:
    """The URI with a relative local path resolved against ``base``; S3 URIs unchanged. Raises
    ``UsageError`` for a path that no file can have, and for an S3 URI without a bucket."""
    if not is_local(uri):
        if not uri.partition("://")[2].partition("/")[0]:
            raise UsageError(f"{uri!r} names no bucket; write s3://bucket/prefix")
        return uri.rstrip("/")
    try:
        return str((base / Path(uri.removeprefix("file://")).expanduser()).resolve())
    except (RuntimeError, ValueError, OSError) as error:  # no such user, a loop of links; NUL
        raise UsageError(f"{uri[:200]!r} is no path ({words(error)}); correct it") from error


def filesystem(uri: str, spec: StorageSpec) -> fsspec.AbstractFileSystem:
    """The fsspec filesystem that holds ``uri``. Listings are never cached: files change."""
    if is_local(uri):
        return fsspec.filesystem("file")
    client: dict[str, Any] = {}
    if spec.endpoint_url:
        client["endpoint_url"] = spec.endpoint_url
    if spec.region:
        client["region_name"] = spec.region
    return fsspec.filesystem(
        "s3", anon=spec.anonymous, client_kwargs=client, use_listings_cache=False
    )


def join(uri: str, *parts: str) -> str:
    """``uri`` extended by path parts that embedlake makes, never by names out of a bucket."""
    return "/".join([uri.rstrip("/"), *parts])


def link_to(uri: str, root: str) -> str | None:
    """The link that stands on the way from a local folder to a path below it; None without one.

    Whoever may write to the folder may have put it there, to have files elsewhere removed.
    """
    if not is_local(root):
        return None
    path = Path(root)
    for name in Path(uri).relative_to(root).parts:
        path /= name
        if path.is_symlink():
            return str(path)
    return None


def names_in(uri: str, spec: StorageSpec) -> list[str]:
    """Names of the files and folders in a folder; none when there is no such folder."""
    try:
        paths = filesystem(uri, spec).ls(uri, detail=False)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [str(path).rstrip("/").rpartition("/")[2] for path in paths]


def read_bytes(uri: str, spec: StorageSpec, most: int | None = None) -> bytes:
    """The whole object, or its first ``most`` bytes. Raises ``FileNotFoundError`` and other
    ``OSError``s, from S3 too."""
    fs = filesystem(uri, spec)
    if is_local(uri):
        return bytes(fs.cat_file(uri, end=most))
    from botocore.exceptions import BotoCoreError  # only S3 needs it loaded

    try:
        with never_silent(f"read {uri}"):
            return bytes(fs.cat_file(uri, end=most))
    except BotoCoreError as error:  # no credentials, no such endpoint: no OSErrors of their own
        raise OSError(without_credentials(error) or words(error)) from error


def write_bytes(uri: str, data: bytes, spec: StorageSpec) -> None:
    """Write the whole object, parents included; a local file appears complete or not at all,
    whoever else writes it at the same time, and is on the disk when this returns."""
    fs = filesystem(uri, spec)
    if not is_local(uri):
        with never_silent(f"write {uri}"):
            fs.pipe_file(uri, data)
        return
    target = Path(uri)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}.partial")
    try:
        partial.write_bytes(data)
        replace_flushed(partial, target)
        _flush(target.parent)
    finally:
        partial.unlink(missing_ok=True)


def replace_flushed(written: Path, target: Path) -> None:
    """Give a file that was written its name: whoever sees the name, after a power loss too, sees
    all of its content. Raises ``OSError``."""
    _flush(written)
    written.replace(target)


def flush(uris: Iterable[str]) -> None:
    """Have local files that were written, and their names in their folders, on the disk when this
    returns: the rest is lost with the power. A store of objects has what it answered for. Raises
    ``OSError``."""
    paths = [Path(uri) for uri in uris if is_local(uri)]
    for path in dict.fromkeys([*paths, *(path.parent for path in paths)]):
        _flush(path)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file as a listing shows it."""

    uri: str
    size_bytes: int
    written_at: datetime
    """UTC, by the store's clock."""


def files_below(uri: str, spec: StorageSpec) -> Iterator[StoredFile]:
    """All files below a folder, none if it does not exist; files that vanish meanwhile are left
    out."""
    if is_local(uri):
        for folder, _, names in os.walk(uri):
            for path in (Path(folder) / name for name in names):
                with contextlib.suppress(FileNotFoundError):
                    stat = path.stat()
                    written = datetime.fromtimestamp(stat.st_mtime, UTC)
                    yield StoredFile(str(path), stat.st_size, written)
        return
    for path, info in filesystem(uri, spec).find(uri, detail=True).items():
        if info["type"] == "file":  # SeaweedFS keeps a folder whose files are gone
            yield StoredFile(path, int(info["size"]), info["LastModified"])


def create_bytes(uri: str, data: bytes, spec: StorageSpec) -> bool:
    """Write the object unless there is one already; False, and nothing changed, when there is.

    Of several writers at once only the first succeeds, by the operating system's exclusive creation
    or by ``If-None-Match``. Raises ``OSError``.
    """
    if is_local(uri):
        Path(uri).parent.mkdir(parents=True, exist_ok=True)
        try:
            with Path(uri).open("xb") as target:
                target.write(data)
        except FileExistsError:
            return False
        return True
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    fs = filesystem(uri, spec)
    try:
        with never_silent(f"write {uri}"):
            fs.call_s3("put_object", Bucket=bucket, Key=key, Body=data, IfNoneMatch="*")
    except Exception as error:
        if fault_of(error) in (Fault.EXISTS, Fault.CHANGED):
            return False
        if isinstance(error, OSError):
            raise
        raise OSError(without_credentials(error) or words(error)) from error
    return True


def lance_options(spec: StorageSpec) -> dict[str, str]:
    """The same store described for Lance (object_store's option names)."""
    options: dict[str, str] = {}
    if spec.endpoint_url:
        options["endpoint"] = spec.endpoint_url
        if spec.endpoint_url.startswith("http://"):
            options["allow_http"] = "true"
    if spec.region:
        options["region"] = spec.region
    if spec.anonymous:
        options["skip_signature"] = "true"
    return options
