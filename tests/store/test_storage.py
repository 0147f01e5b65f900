"""Files by URI, on this machine and on S3."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from embedding_core.errors import UsageError
from embedding_core.store import storage
from embedding_core.store.storage import StorageSpec
from tests.s3 import S3Server

LOCAL = StorageSpec()


@pytest.mark.parametrize(
    ("uri", "local"),
    [
        ("/data/x", True), ("x/y", True), ("file:///data/x", True), ("/data/a://b", True),
        ("/data/[a://b", True), ("s3://bucket", False), ("s3://bucket/a://b", False),
        ("s3://bucket/[x", False),
    ],
)  # fmt: skip
def test_a_uri_is_local_or_on_s3(uri: str, local: bool) -> None:
    assert storage.is_local(uri) is local


@pytest.mark.parametrize("uri", ["gs://bucket/x", "http://host/x", "S3://bucket", "ftp://[x"])
def test_other_schemes_are_refused_with_the_ones_that_work(uri: str) -> None:
    with pytest.raises(UsageError, match=r"use a local path or s3://"):
        storage.is_local(uri)


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("x/y", "/base/x/y"), ("./x/../y", "/base/y"), ("/abs", "/abs"), ("file:///abs", "/abs"),
        ("s3://bucket/prefix/", "s3://bucket/prefix"), ("s3://bucket/a/../b", "s3://bucket/a/../b"),
    ],
)  # fmt: skip
def test_local_paths_become_absolute_and_s3_keys_stay(uri: str, expected: str) -> None:
    assert storage.absolute(uri, Path("/base")) == expected


def test_a_tilde_is_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert storage.absolute("~/x", Path("/base")) == str(tmp_path.resolve() / "x")


def test_join_adds_parts_with_single_slashes() -> None:
    assert storage.join("s3://b/p/", "x", "y.json") == "s3://b/p/x/y.json"


def test_bytes_come_back_from_a_local_file_whose_folder_did_not_exist(tmp_path: Path) -> None:
    uri = str(tmp_path / "new" / "folder" / "x.bin")
    storage.write_bytes(uri, b"one", LOCAL)
    storage.write_bytes(uri, b"two", LOCAL)
    assert storage.read_bytes(uri, LOCAL) == b"two"
    assert [path.name for path in Path(uri).parent.iterdir()] == ["x.bin"]


def test_concurrent_writers_leave_one_whole_file(tmp_path: Path) -> None:
    uri = str(tmp_path / "x.bin")
    failures: list[BaseException] = []

    def write(byte: bytes) -> None:
        try:
            for _ in range(50):
                storage.write_bytes(uri, byte * 10_000, LOCAL)
        except OSError as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(byte,)) for byte in (b"a", b"b", b"c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert storage.read_bytes(uri, LOCAL) in [byte * 10_000 for byte in (b"a", b"b", b"c")]
    assert [path.name for path in tmp_path.iterdir()] == ["x.bin"]


def test_a_failed_write_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = str(tmp_path / "x.bin")
    storage.write_bytes(uri, b"old", LOCAL)

    def failing(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", failing)
    with pytest.raises(OSError, match="No space"):
        storage.write_bytes(uri, b"new", LOCAL)
    assert storage.read_bytes(uri, LOCAL) == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["x.bin"]


def test_a_missing_file_is_a_file_not_found_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        storage.read_bytes(str(tmp_path / "none"), LOCAL)


def test_bytes_come_back_from_s3(s3: S3Server) -> None:
    uri = storage.join(f"s3://{s3.bucket}", "deep", "x.bin")
    storage.write_bytes(uri, b"one", s3.storage)
    assert storage.read_bytes(uri, s3.storage) == b"one"
    storage.write_bytes(uri, b"two", s3.storage)
    assert storage.read_bytes(uri, s3.storage) == b"two"
    with pytest.raises(FileNotFoundError):
        storage.read_bytes(f"s3://{s3.bucket}/none", s3.storage)


def test_a_listing_on_s3_is_never_an_old_one(s3: S3Server) -> None:
    bucket = s3.new_bucket()
    uri = f"s3://{bucket}"
    storage.write_bytes(f"{uri}/a", b"1", s3.storage)
    assert len(storage.filesystem(uri, s3.storage).find(bucket)) == 1
    s3.put(bucket, "b", b"2")
    assert len(storage.filesystem(uri, s3.storage).find(bucket)) == 2


@pytest.mark.parametrize(
    ("spec", "options"),
    [
        (StorageSpec(), {}),
        (
            StorageSpec(endpoint_url="http://127.0.0.1:1"),
            {"endpoint": "http://127.0.0.1:1", "allow_http": "true"},
        ),
        (StorageSpec(endpoint_url="https://store"), {"endpoint": "https://store"}),
        (StorageSpec(region="eu-1"), {"region": "eu-1"}),
        (StorageSpec(anonymous=True), {"skip_signature": "true"}),
    ],
)
def test_lance_is_told_the_same_store(spec: StorageSpec, options: dict[str, str]) -> None:
    assert storage.lance_options(spec) == options


def test_anonymous_requests_are_unsigned(s3: S3Server) -> None:
    spec = s3.storage.model_copy(update={"anonymous": True})
    with pytest.raises(PermissionError):
        storage.read_bytes(f"s3://{s3.bucket}/x", spec)


def test_files_below_a_folder_on_s3_that_was_emptied_are_none(s3: S3Server) -> None:
    folder = f"s3://{s3.new_bucket()}/lake/staged"
    assert list(storage.files_below(folder, s3.storage)) == []
    storage.write_bytes(f"{folder}/unit/a", b"1", s3.storage)
    assert [one.size_bytes for one in storage.files_below(folder, s3.storage)] == [1]
    storage.filesystem(folder, s3.storage).rm_file(
        f"{folder}/unit/a"
    )  # the server keeps its folder
    assert list(storage.files_below(folder, s3.storage)) == []
