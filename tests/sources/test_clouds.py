"""Sources in Google's and Azure's storage: the class over fsspec's own files in memory, and what
is said where a library or a login is missing. Emulators run the contract of stores."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest
from aiohttp import ClientPayloadError
from aiohttp.http_exceptions import ContentLengthError
from fsspec.implementations.memory import MemoryFileSystem

from embedding_core.errors import RejectedInput, SetupError, Transient, UsageError
from embedding_core.recipe import Resources
from embedding_core.records import SourceFile
from embedding_core.sources import documents
from embedding_core.store import retry
from embedding_core.store.clouds import AZURE, CloudObjects
from embedding_core.store.storage import StorageSpec
from embedlake import embed
from tests.driver import recipe_for
from tests.sources.clouds import google


class Checked(MemoryFileSystem):  # type: ignore[misc]
    """fsspec's files in memory, with the checksum that a cloud's listing has."""

    def info(self, path: str, **kwargs: object) -> dict[str, object]:
        info: dict[str, object] = super().info(path, **kwargs)
        content = self.cat_file(path) if info["type"] == "file" else b""
        return info | {"md5Hash": hashlib.md5(content).hexdigest()}

    def find(self, path: str, **kwargs: object) -> dict[str, dict[str, object]]:
        return {name: self.info(name) for name in super().find(path)}


LIBRARY = f"{__name__}:Checked"
MEMORY = CloudObjects("memory", LIBRARY, "pip install nothing", "MEMORY_KEY", lambda spec: {})
SPEC = StorageSpec()


class Everything:
    def enters(self, folder: str) -> bool:
        return True

    def takes(self, file: str) -> bool:
        return True


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    fs = fsspec.filesystem("memory")
    fs.pipe_file("/bucket/in/a.jsonl", b"first")
    yield fs
    fs.rm("/bucket", recursive=True)


class Failing(fsspec.AbstractFileSystem):  # type: ignore[misc]
    """A store that answers everything with one error."""

    protocol = "failing"
    error: Exception = OSError()

    def info(self, path: str, **kwargs: object) -> dict[str, object]:
        raise Failing.error

    def cat_file(self, path: str, **kwargs: object) -> bytes:
        raise Failing.error


class HttpError(Exception):
    """As the clouds' libraries have it: a number, and words."""

    def __init__(self, code: int) -> None:
        super().__init__(f"HTTP {code}")
        self.code = code


def listed(store: CloudObjects, uri: str) -> list[SourceFile]:
    entries = store.list(uri, SPEC, Everything())
    return [entry for entry in entries if isinstance(entry, SourceFile)]


def test_objects_are_listed_read_and_told_apart(memory: fsspec.AbstractFileSystem) -> None:
    (file,) = listed(MEMORY, "memory://bucket/in")
    assert (file.uri, file.size_bytes) == ("memory://bucket/in/a.jsonl", 5)
    with MEMORY.open(file, SPEC) as stream:
        assert stream.read() == b"first"
    MEMORY.check_unchanged(file, SPEC)
    memory.pipe_file("/bucket/in/a.jsonl", b"other")
    with pytest.raises(RejectedInput, match="changed"):
        MEMORY.check_unchanged(file, SPEC)


@pytest.mark.usefixtures("memory")
def test_an_empty_prefix_of_a_bucket_is_an_empty_source() -> None:
    assert listed(MEMORY, "memory://bucket/none") == []
    with pytest.raises(SetupError, match=r"correct source\.uri, or check the credentials \(MEMORY"):
        listed(MEMORY, "memory://nobody/none")


def test_a_missing_library_is_named_with_how_to_install_it() -> None:
    missing = replace(MEMORY, library="no_such_library:X", install="pip install 'embedlake[gcs]'")
    with pytest.raises(SetupError, match=r"no_such_library.*pip install 'embedlake\[gcs\]'"):
        listed(missing, "memory://bucket")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (HttpError(403), SetupError),
        (HttpError(503), Transient),
        (HttpError(429), Transient),
        (ConnectionError("reset"), Transient),
        (ClientPayloadError("half of it"), Transient),
        (ContentLengthError("half of it"), Transient),
        (ValueError("no account"), SetupError),
    ],
)
def test_faults_of_a_listing_are_told_apart(error: Exception, kind: type[Exception]) -> None:
    Failing.error = error
    failing = replace(MEMORY, library=f"{__name__}:Failing")
    with pytest.raises(kind):
        listed(failing, "memory://bucket/in")


@pytest.mark.parametrize(("code", "kind"), [(404, RejectedInput), (500, Transient)])
def test_faults_of_a_read_are_told_apart(code: int, kind: type[Exception]) -> None:
    Failing.error = HttpError(code)
    failing = replace(MEMORY, library=f"{__name__}:Failing")
    file = SourceFile("memory://bucket/a", "3-x", 3)
    with pytest.raises(kind), failing.open(file, SPEC) as stream:
        stream.read()


class Slow(fsspec.AbstractFileSystem):  # type: ignore[misc]
    """A store that answers when the log has said that it takes long."""

    protocol = "slow"
    said = threading.Event()

    def info(self, path: str, **kwargs: object) -> dict[str, object]:
        assert Slow.said.wait(60)
        return {"name": path, "size": 3, "type": "file", "etag": "x"}

    def cat_file(self, path: str, **kwargs: object) -> bytes:
        assert Slow.said.wait(60)
        return b"abc"


def test_a_store_that_takes_long_is_said_whatever_it_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    messages: list[str] = []

    class Said(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())
            Slow.said.set()

    monkeypatch.setattr(retry, "SILENT_SECONDS", 0.001)
    monkeypatch.setattr(retry.log, "handlers", [Said()])
    slow = replace(MEMORY, library=f"{__name__}:Slow")
    (file,) = listed(slow, "memory://bucket/a")
    with slow.open(file, SPEC) as stream:
        Slow.said.clear()
        assert stream.read() == b"abc"
    Slow.said.clear()
    slow.check_unchanged(file, SPEC)
    for doing in ("list memory://bucket/a", "read memory://bucket/a", "look at memory://bucket/a"):
        assert any(message.startswith(f"still trying to {doing}") for message in messages)


def test_azure_has_no_endpoint_in_a_recipe() -> None:
    pytest.importorskip("adlfs")
    spec = StorageSpec(endpoint_url="http://127.0.0.1:9")
    with pytest.raises(UsageError, match="AZURE_STORAGE_CONNECTION_STRING"):
        list(AZURE.list("az://container/in", spec, Everything()))


def test_a_key_with_odd_characters_is_read_from_googles_storage() -> None:
    with google() as source:
        source.put("a b/ü%2f.jsonl", b"odd")
        store = CloudObjects(
            "gs",
            "gcsfs.core:GCSFileSystem",
            "",
            "",
            lambda spec: {"endpoint_url": spec.endpoint_url, "token": "anon"},
        )
        (file,) = store.list(source.uri, source.storage, Everything())
        with store.open(file, source.storage) as stream:
            assert stream.read() == b"odd"


@pytest.mark.slow
def test_slices_of_a_huge_object_are_put_together_where_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "SMALLEST_SLICE_BYTES", 1)
    with google() as source:
        source.put("a.jsonl", b"".join(b'{"text": "words %d"}\n' % n for n in range(500)))
        recipe = recipe_for(
            tmp_path,
            source={"uri": source.uri, "id": None, "storage": source.storage.model_dump()},
        )
        report = embed(recipe, Resources(unit_bytes=2_000))
    assert (report.rows, report.outcome) == (500, "done")
