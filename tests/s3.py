"""A real S3 server for tests: the one that ``embedlake up --s3`` starts.

Use the session fixture ``s3``; each test that writes makes its own bucket with ``new_bucket``.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import fsspec

from embedding_core.store.storage import StorageSpec
from embedlake.local import processes, stack


@dataclass(frozen=True, slots=True)
class S3Server:
    """A running server and a bucket in it."""

    endpoint_url: str
    access_key: str
    secret_key: str
    bucket: str

    @property
    def storage(self) -> StorageSpec:
        """How a recipe names this server."""
        return StorageSpec(endpoint_url=self.endpoint_url, region=stack.S3_REGION)

    def filesystem(self) -> fsspec.AbstractFileSystem:
        """An s3fs client with the server's key."""
        return fsspec.filesystem(
            "s3",
            key=self.access_key,
            secret=self.secret_key,
            client_kwargs={"endpoint_url": self.endpoint_url, "region_name": stack.S3_REGION},
            use_listings_cache=False,
        )

    def new_bucket(self) -> str:
        """Create an empty bucket and return its name."""
        name = f"test-{uuid.uuid4().hex[:12]}"
        self.filesystem().call_s3("create_bucket", Bucket=name)
        return name

    def put(self, bucket: str, key: str, data: bytes) -> None:
        """Write one object under exactly this key."""
        self.filesystem().call_s3("put_object", Bucket=bucket, Key=key, Body=data)


@contextmanager
def s3_server(folder: Path) -> Iterator[S3Server]:
    """Start a server with its data under ``folder``, wait until it answers, stop it at the end.

    Meanwhile the process's AWS environment variables hold its key.
    """
    server = stack.start_s3(folder)
    credentials = {
        name: value
        for name, value in stack.s3_environment(folder, server.url or "").items()
        if name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION")
    }
    try:
        with _environment(credentials):
            key, secret = credentials["AWS_ACCESS_KEY_ID"], credentials["AWS_SECRET_ACCESS_KEY"]
            started = S3Server(server.url or "", key, secret, f"test-{uuid.uuid4().hex[:12]}")
            started.filesystem().call_s3("create_bucket", Bucket=started.bucket)
            yield started
    finally:
        processes.stop(server, patience_seconds=0)  # by itself it takes 25 s


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
