"""Sources on S3: a real server for the usual, a stub for odd keys and faults."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedding_core.errors import RejectedInput, SetupError, Transient
from embedding_core.recipe import SourceSpec
from embedding_core.records import Document, SourceFile
from embedding_core.sources import discover, read_documents
from embedding_core.store.s3 import Bucket
from tests.s3 import S3Server
from tests.sources.stub_s3 import BUCKET, StubS3, stub_s3

LINE = b'{"text": "hello"}\n'


@pytest.fixture
def stub() -> Iterator[StubS3]:
    with stub_s3() as running:
        yield running


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client's own retries stay, the pauses between them do not."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)


def spec_of(stub: StubS3, **changes: object) -> SourceSpec:
    return SourceSpec(uri=f"s3://{BUCKET}", storage=stub.storage, **changes)  # type: ignore[arg-type]


def texts(file: SourceFile, spec: SourceSpec) -> list[str]:
    return [d.text for d in read_documents(file, spec) if isinstance(d, Document)]


def test_every_format_is_read_from_a_real_server(s3: S3Server) -> None:
    bucket = s3.new_bucket()
    s3.put(bucket, "in/a.jsonl", LINE * 3)
    s3.put(bucket, "in/b.jsonl.gz", gzip.compress(LINE) + gzip.compress(LINE))
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": ["hello"] * 3000, "big": ["x" * 100] * 3000}), sink)
    s3.put(bucket, "in/deep/c.parquet", sink.getvalue().to_pybytes())
    s3.put(bucket, "in/d.txt", b"hello")
    s3.put(bucket, "in/e.xyz", b"hello")
    s3.put(bucket, "other/f.txt", b"hello")
    spec = SourceSpec(uri=f"s3://{bucket}/in", storage=s3.storage)
    found = discover(spec)
    assert [file.uri.removeprefix(f"s3://{bucket}/in/") for file in found.files] == [
        "a.jsonl", "b.jsonl.gz", "d.txt", "deep/c.parquet",
    ]  # fmt: skip
    assert [len(texts(file, spec)) for file in found.files] == [3, 2, 1, 3000]
    assert discover(spec) == found


def test_the_fingerprint_follows_the_content_on_a_real_server(s3: S3Server) -> None:
    bucket = s3.new_bucket()
    spec = SourceSpec(uri=f"s3://{bucket}/a.jsonl", storage=s3.storage)
    s3.put(bucket, "a.jsonl", LINE)
    s3.put(bucket, "a.jsonl.old/b.txt", LINE)
    (before,) = discover(spec).files
    s3.put(bucket, "a.jsonl", LINE.replace(b"hello", b"world"))
    (after,) = discover(spec).files
    assert before.size_bytes == after.size_bytes == len(LINE)
    assert before.fingerprint != after.fingerprint
    assert texts(after, spec) == ["world"]
    with pytest.raises(RejectedInput, match="changed"):
        list(read_documents(before, spec))


@pytest.mark.parametrize(
    "key", ["p%2fq.jsonl", 'sp ace\'s "q"+#.jsonl', "v?versionId=1.jsonl", "ünï\ncode.jsonl"]
)
def test_odd_keys_come_back_exactly_from_a_real_server(s3: S3Server, key: str) -> None:
    bucket = s3.new_bucket()
    s3.put(bucket, key, LINE)
    spec = SourceSpec(uri=f"s3://{bucket}", storage=s3.storage)
    (file,) = discover(spec).files
    assert file.uri == f"s3://{bucket}/{key}"
    assert texts(file, spec) == ["hello"]


@pytest.mark.parametrize("problem", ["no bucket", "wrong key", "empty prefix"])
def test_a_source_that_is_not_there_says_what_to_do(
    s3: S3Server, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = "no-such-bucket" if problem == "no bucket" else s3.bucket
    storage = s3.storage
    if problem == "wrong key":
        storage = storage.model_copy(update={"anonymous": True})
    uri = f"s3://{bucket}/nothing-here"
    with pytest.raises(SetupError) as caught:
        discover(SourceSpec(uri=uri, storage=storage))
    expected = {
        "no bucket": ["'no-such-bucket'", "create the bucket"],
        "wrong key": [s3.bucket, "check the credentials"],
        "empty prefix": [uri, "*.jsonl", "source.include"],
    }
    assert all(words in str(caught.value) for words in expected[problem])


@pytest.mark.parametrize(
    "key",
    ["a/../b.jsonl", "../up.jsonl", "x//y.jsonl", "/lead.jsonl", "./here.jsonl", "s3://in.jsonl"],
)
def test_keys_are_never_taken_for_paths(stub: StubS3, key: str) -> None:
    stub.objects = {key: LINE, "b.jsonl": b'{"text": "wrong"}\n'}
    spec = spec_of(stub)
    file = next(f for f in discover(spec).files if f.uri != f"s3://{BUCKET}/b.jsonl")
    assert file.uri == f"s3://{BUCKET}/{key}"
    assert texts(file, spec) == ["hello"]


def test_a_listing_that_pages_for_ever_is_stopped(stub: StubS3) -> None:
    stub.objects = {f"{number}.jsonl": b"{}" for number in range(3)}
    stub.page_size, stub.is_endless = 2, True
    spec = SourceSpec(uri=f"s3://{BUCKET}", storage=stub.storage)
    with pytest.raises(SetupError, match="does not end: its pages repeat; check the endpoint"):
        discover(spec)


@pytest.mark.slow
def test_a_listing_of_many_pages_is_complete_and_sorted(stub: StubS3) -> None:
    stub.objects = {f"{n}.jsonl": LINE for n in range(25)} | {
        "folder/": b"",
        ".hidden/x.jsonl": b"",
    }
    stub.page_size = 4
    uris = [file.uri for file in discover(spec_of(stub)).files]
    assert uris == sorted(f"s3://{BUCKET}/{n}.jsonl" for n in range(25))


def test_discovery_reads_no_object(stub: StubS3) -> None:
    stub.objects = {"a.jsonl": LINE}
    discover(spec_of(stub))
    assert stub.requests == [f"/{BUCKET}"]


@pytest.mark.slow
@pytest.mark.parametrize("status", [500, 503, 429])
@pytest.mark.usefixtures("no_pauses")
def test_a_store_in_trouble_is_transient(stub: StubS3, status: int) -> None:
    stub.objects = {"a.jsonl": LINE}
    spec = spec_of(stub)
    (file,) = discover(spec).files
    stub.status = status
    with pytest.raises(Transient):
        discover(spec)
    with pytest.raises(Transient):
        list(read_documents(file, spec))


@pytest.mark.usefixtures("no_pauses")
def test_a_connection_that_breaks_is_transient(stub: StubS3) -> None:
    stub.objects = {"a.jsonl": LINE * 100, "b.parquet": b"PAR1" * 100}
    spec = spec_of(stub)
    files = discover(spec).files
    stub.cut_bodies = True
    for file in files:
        with pytest.raises(Transient):
            list(read_documents(file, spec))


@pytest.mark.slow
@pytest.mark.usefixtures("no_pauses")
def test_a_store_that_is_not_there_is_transient(stub: StubS3) -> None:
    spec = spec_of(stub)
    gone = spec.model_copy(
        update={"storage": spec.storage.model_copy(update={"endpoint_url": "http://127.0.0.1:9"})}
    )
    with pytest.raises(Transient, match="does not answer"):
        discover(gone)


def test_an_object_that_is_refused_or_gone_rejects_that_file(stub: StubS3) -> None:
    stub.objects = {"a.jsonl": LINE}
    spec = spec_of(stub)
    (file,) = discover(spec).files
    stub.objects = {}
    with pytest.raises(RejectedInput, match="unreadable"):
        list(read_documents(file, spec))
    stub.status = 403
    with pytest.raises(RejectedInput, match="unreadable"):
        list(read_documents(file, spec))
    with pytest.raises(SetupError, match="credentials"):
        discover(spec)


@pytest.mark.slow
def test_an_object_that_changes_while_it_is_read_is_rejected(stub: StubS3) -> None:
    line = json.dumps({"text": "x" * 1_000_000}).encode() + b"\n"
    stub.objects = {"a.jsonl": line * 3}
    spec = spec_of(stub)
    (file,) = discover(spec).files
    documents = read_documents(file, spec)
    next(documents)
    stub.objects["a.jsonl"] = line * 3 + b"\n"
    with pytest.raises(RejectedInput, match="changed"):
        list(documents)


def test_an_endpoint_that_is_no_address_is_a_setup_error() -> None:
    storage = {"endpoint_url": "not an address", "anonymous": True}
    with pytest.raises(SetupError, match="storage"):
        discover(SourceSpec(uri=f"s3://{BUCKET}", storage=storage))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt", "a.csv.gz", "a.json"])
def test_small_file_takes_one_request_whatever_its_format(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    bucket, requests = s3.new_bucket(), []
    s3.put(bucket, name, gzip.compress(b"text\nhello\n") if name.endswith("gz") else LINE)
    spec = SourceSpec(uri=f"s3://{bucket}", storage=s3.storage)
    (file,) = discover(spec).files
    read = Bucket.read

    def counted(self: Bucket, *arguments: Any) -> bytes:
        requests.append(arguments)
        return read(self, *arguments)

    monkeypatch.setattr(Bucket, "read", counted)
    assert texts(file, spec)
    assert len(requests) == 1
