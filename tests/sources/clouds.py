"""Emulators of object stores: Google's in this process, Azure's where it is installed."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from embedding_core.store.storage import StorageSpec

AZURITE_KEY = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)
"""The key that the emulator ships with, the same for everyone."""


@dataclass
class CloudSource:
    """A folder of a new bucket of an emulator."""

    scheme: str
    fs: Any
    storage: StorageSpec = field(default_factory=StorageSpec)
    bucket: str = field(default_factory=lambda: f"b{uuid4().hex}")

    @property
    def uri(self) -> str:
        return f"{self.scheme}://{self.bucket}/in"

    @property
    def folder(self) -> str:
        return self.uri

    @property
    def missing(self) -> str:
        return f"{self.scheme}://b{uuid4().hex}/none"

    def put(self, name: str, content: bytes) -> None:
        self.fs.pipe_file(f"{self.bucket}/in/{name}", content)

    def delete(self, name: str) -> None:
        self.fs.rm_file(f"{self.bucket}/in/{name}")


@contextmanager
def google() -> Iterator[CloudSource]:
    """Google's storage, emulated in this process."""
    gcsfs = pytest.importorskip("gcsfs.core")
    emulator = pytest.importorskip("gcp_storage_emulator.server")
    port = _free_port()
    server = emulator.create_server("127.0.0.1", port, in_memory=True)
    server.start()
    try:
        storage = StorageSpec(endpoint_url=f"http://127.0.0.1:{port}", anonymous=True)
        fs = gcsfs.GCSFileSystem(endpoint_url=storage.endpoint_url, token="anon")
        source = CloudSource("gs", fs, storage)
        fs.mkdir(source.bucket)
        yield source
    finally:
        server.stop()


@contextmanager
def azure(folder: Path) -> Iterator[CloudSource]:
    """Azure's storage, emulated by Azurite; skipped where ``azurite-blob`` is not on the path."""
    adlfs = pytest.importorskip("adlfs")
    program = shutil.which("azurite-blob")
    if program is None:
        pytest.skip("azurite-blob is not on the path: npm install -g azurite")
    port = _free_port()
    address = f"http://127.0.0.1:{port}/devstoreaccount1"
    login = f"AccountName=devstoreaccount1;AccountKey={AZURITE_KEY};BlobEndpoint={address};"
    kinds = adlfs.AzureBlobFileSystem
    server = subprocess.Popen(
        [program, "--skipApiVersionCheck", "--inMemoryPersistence", "--blobPort", str(port)],
        cwd=folder,
        stdout=subprocess.DEVNULL,
    )
    try:
        while not _listens(port):
            assert server.poll() is None, "azurite-blob ended"
            time.sleep(0.05)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(
                "AZURE_STORAGE_CONNECTION_STRING", f"DefaultEndpointsProtocol=http;{login}"
            )
            kinds.clear_instance_cache()
            source = CloudSource("az", kinds())
            source.fs.mkdir(source.bucket)
            yield source
            kinds.clear_instance_cache()
    finally:
        server.kill()
        server.wait()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as client:
        client.settimeout(0.2)
        return client.connect_ex(("127.0.0.1", port)) == 0
