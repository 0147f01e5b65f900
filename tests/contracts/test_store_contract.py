"""What every store promises: complete listings, seekable streams, and faults told apart."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest

from embedding_core.errors import RejectedInput, SetupError, UsageError
from embedding_core.records import SourceFile
from embedding_core.store.places import PLACES, Store, place_of
from embedding_core.store.storage import StorageSpec
from tests.sources.clouds import azure, google
from tests.sources.stub_hub import DATASET, StubHub, stub_hub
from tests.sources.stub_s3 import BUCKET, StubS3, stub_s3
from tests.sources.stub_web import StubWeb, stub_web

CONTENT = bytes(range(256)) * 40


class Source(Protocol):
    """A source in a store, and how its files are changed."""

    uri: str
    storage: StorageSpec
    folder: str
    """What the URIs of its files begin with."""
    missing: str
    """A source that is not there."""

    def put(self, name: str, content: bytes) -> None: ...
    def delete(self, name: str) -> None: ...


class FolderSource:
    """A source whose URI is the folder of its files."""

    uri: str

    @property
    def folder(self) -> str:
        return self.uri

    @property
    def missing(self) -> str:
        return f"{self.uri}/none"


@dataclass
class LocalSource(FolderSource):
    uri: str
    storage: StorageSpec

    def put(self, name: str, content: bytes) -> None:
        path = Path(self.uri, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def delete(self, name: str) -> None:
        Path(self.uri, name).unlink()


@dataclass
class S3Source(FolderSource):
    stub: StubS3
    uri: str = f"s3://{BUCKET}/in"

    @property
    def storage(self) -> StorageSpec:
        return self.stub.storage

    def put(self, name: str, content: bytes) -> None:
        self.stub.objects[f"in/{name}"] = content

    def delete(self, name: str) -> None:
        del self.stub.objects[f"in/{name}"]


@dataclass
class HubSource(FolderSource):
    hub: StubHub
    uri: str = f"hf://datasets/{DATASET}/in"

    @property
    def storage(self) -> StorageSpec:
        return self.hub.storage

    def put(self, name: str, content: bytes) -> None:
        self.hub.commit({**self._files(), f"in/{name}": content})

    def delete(self, name: str) -> None:
        left = {path: data for path, data in self._files().items() if path != f"in/{name}"}
        self.hub.commits.clear()  # as when the history is squashed
        self.hub.commit(left)

    def _files(self) -> Mapping[str, bytes]:
        return self.hub.commits.get(self.hub.branches.get("main", ""), {})


@dataclass
class WebSource:
    web: StubWeb

    @property
    def storage(self) -> StorageSpec:
        return StorageSpec()

    @property
    def folder(self) -> str:
        return f"{self.web.url}/in"

    @property
    def uri(self) -> str:
        return f"{self.folder}/list.txt"

    @property
    def missing(self) -> str:
        return f"{self.folder}/none"

    def put(self, name: str, content: bytes) -> None:
        self.web.files[f"in/{name}"] = content
        self._write_list()

    def delete(self, name: str) -> None:
        del self.web.files[f"in/{name}"]
        self._write_list()

    def _write_list(self) -> None:
        names = [path.removeprefix("in/") for path in self.web.files if path != "in/list.txt"]
        self.web.files["in/list.txt"] = "\n".join(names).encode()


@contextmanager
def source_in(name: str, folder: Path) -> Iterator[Source]:
    if name == "local":
        yield LocalSource(str(folder), StorageSpec())
    elif name == "s3":
        with stub_s3() as stub:
            stub.page_size = 2
            yield S3Source(stub)
    elif name == "hub":
        with stub_hub() as hub:
            hub.page_size = 2
            yield HubSource(hub)
    elif name == "web":
        with stub_web() as web:
            yield WebSource(web)
    elif name == "gcs":
        with google() as running:
            yield running
    elif name == "azure":
        with azure(folder) as running:
            yield running
    else:
        raise KeyError(f"store {name!r} has no source in this contract; add it")


class Names:
    """Takes every file outside of folders called ``skip``."""

    def enters(self, folder: str) -> bool:
        return not folder.endswith("skip")

    def takes(self, file: str) -> bool:
        return not file.endswith(".no")


@pytest.fixture(params=list(PLACES.working()))
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Source]:
    with source_in(request.param, tmp_path) as running:
        yield running


@pytest.fixture
def store(source: Source) -> Store:
    return place_of(source.uri)


def files(source: Source, uri: str | None = None) -> dict[str, SourceFile]:
    """What a store lists, by the path below the source."""
    entries = place_of(source.uri).list(uri or source.uri, source.storage, Names())
    listed = [entry for entry in entries if isinstance(entry, SourceFile)]
    return {file.uri.removeprefix(source.folder).strip("/"): file for file in listed}


@pytest.mark.slow
def test_list_gives_each_file_that_the_names_take(source: Source) -> None:
    for name in ("a.x", "b.no", "deep/er/c.x", "skip/d.x", "deep/skip/e.x", "deep/f.x"):
        source.put(name, name.encode())
    listed = files(source)
    assert sorted(listed) == ["a.x", "deep/er/c.x", "deep/f.x"]
    assert [listed[name].size_bytes for name in sorted(listed)] == [3, 11, 8]


def test_list_a_source_that_is_one_file_whatever_the_names_say(source: Source) -> None:
    source.put("b.no", b"x")
    source.put("b.no.more", b"x")
    assert list(files(source, f"{source.folder}/b.no")) == ["b.no"]


def test_list_same_content_same_fingerprint_other_content_another(source: Source) -> None:
    for name, content in (("a", b"one"), ("b", b"one"), ("c", b"two")):
        source.put(name, content)
    listed = files(source)
    assert listed["a"].fingerprint == listed["b"].fingerprint != listed["c"].fingerprint


def test_open_stream_seeks_and_reads_exactly(source: Source, store: Store) -> None:
    source.put("a", CONTENT)
    with store.open(files(source)["a"], source.storage) as stream:
        assert stream.readable() and stream.seekable()
        assert stream.read(3) == CONTENT[:3]
        assert stream.seek(-5, io.SEEK_END) == len(CONTENT) - 5 == stream.tell()
        assert stream.readall() == CONTENT[-5:]
        assert stream.read(1) == b""
        stream.seek(1000)
        with io.BufferedReader(stream, 64) as buffered:
            assert buffered.read() == CONTENT[1000:]


def test_a_file_that_changed_is_never_read_as_the_listed_one(source: Source, store: Store) -> None:
    """A store that keeps versions reads the listed one; the others refuse."""
    source.put("a", b"listed")
    file = files(source)["a"]
    store.check_unchanged(file, source.storage)
    source.put("a", b"change")
    try:
        with store.open(file, source.storage) as stream:
            content = stream.readall()
        store.check_unchanged(file, source.storage)
    except RejectedInput as rejected:
        assert rejected.reason == "changed"
    else:
        assert content == b"listed"
        assert file.version


def test_a_file_that_is_gone_is_unreadable(source: Source, store: Store) -> None:
    source.put("a", b"x")
    source.put("b", b"x")
    file = files(source)["a"]
    source.delete("a")
    with pytest.raises(RejectedInput) as caught, store.open(file, source.storage) as stream:
        stream.readall()
    assert caught.value.reason == "unreadable"


def test_a_store_that_is_not_there_says_what_to_correct(
    source: Source, store: Store, tmp_path: Path
) -> None:
    if isinstance(source, S3Source):
        source.stub.status = 403
    with pytest.raises(SetupError, match=r"source\.uri|credentials"):
        list(store.list(source.missing, source.storage, Names()))


@pytest.mark.parametrize("uri", ["ftp://bucket/x", "S3://bucket"])
def test_place_of_another_scheme_names_those_there_are(uri: str) -> None:
    with pytest.raises(UsageError, match=r"is not supported; use a local path or s3://"):
        place_of(uri)
