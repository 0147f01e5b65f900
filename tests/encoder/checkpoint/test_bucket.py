"""Checkpoints in buckets: a real server for the usual, a stub for faults."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from embedding_core.encoder import Encoder
from embedding_core.encoder.checkpoint.cache import cache_folder
from embedding_core.errors import ModelError, Transient
from embedding_core.identity import space_id
from embedding_core.store.s3 import Bucket, ObjectVersion
from embedding_core.store.storage import StorageSpec
from tests.checkpoints import as_sentence_transformer, build_adapter, build_qwen3
from tests.models import describe
from tests.s3 import S3Server
from tests.sources.stub_s3 import BUCKET, StubS3, stub_s3

NOT_OF_A_CHECKPOINT = (
    "../evil.json",
    "a/../../evil.json",
    "/evil.json",
    ".hidden.json",
    "optimizer.pt",
    "x/y.json",
    "1_Pooling/a/b.json",
    "checkpoint-5/model.safetensors",
)
FILES = ("config.json", "model.safetensors", "tokenizer.json")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Hugging Face's home, empty."""
    folder = tmp_path / "hf"
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(folder))
    return folder


@pytest.fixture
def stub(tiny_qwen3: Path) -> Iterator[StubS3]:
    """A bucket with a checkpoint under ``models/q``."""
    with stub_s3() as running:
        put(running, "models/q", tiny_qwen3)
        yield running


def put(stub: StubS3, prefix: str, folder: Path) -> None:
    for path in (path for path in folder.rglob("*") if path.is_file()):
        stub.objects[f"{prefix}/{path.relative_to(folder)}"] = path.read_bytes()


def resolved_space(stub: StubS3, name: str = "models/q") -> str:
    return space_id(describe(f"s3://{BUCKET}/{name}", storage=stub.storage).space)


def copies() -> list[Path]:
    """Checkpoints on this machine; what a copy under way leaves would be among them."""
    folder = cache_folder() / "checkpoints"
    found = folder.iterdir() if folder.is_dir() else ()
    return [path for path in found if path.suffix != ".lock"]


def test_unchanged_checkpoint_one_listing_no_download(stub: StubS3, tiny_qwen3: Path) -> None:
    first = resolved_space(stub)
    assert first == space_id(describe(str(tiny_qwen3)).space)
    assert sorted(stub.requests) == [f"/{BUCKET}"] + [f"/{BUCKET}/models/q/{f}" for f in FILES]
    stub.requests.clear()
    assert resolved_space(stub) == first
    assert stub.requests == [f"/{BUCKET}"]


@pytest.mark.slow
def test_changed_checkpoint_is_copied_anew_beside_the_old(stub: StubS3, tmp_path: Path) -> None:
    before = resolved_space(stub)
    put(stub, "models/q", build_qwen3(tmp_path / "new", initializer_range=0.2))
    assert resolved_space(stub) != before
    assert len(copies()) == 2


def test_only_files_of_a_checkpoint_are_copied(stub: StubS3) -> None:
    for key in NOT_OF_A_CHECKPOINT:
        stub.objects[f"models/q/{key}"] = b"{}"
    resolved_space(stub)
    [folder] = copies()
    assert sorted(path.name for path in folder.iterdir()) == list(FILES)


@pytest.mark.slow
def test_damaged_copy_is_made_anew(stub: StubS3) -> None:
    expected = resolved_space(stub)
    [folder] = copies()
    (folder / "config.json").unlink()
    assert resolved_space(stub) == expected
    (folder / "model.safetensors").write_bytes(b"short")
    assert resolved_space(stub) == expected
    shutil.rmtree(cache_folder())
    assert resolved_space(stub) == expected


def test_truncated_weights_in_the_bucket_refused(stub: StubS3) -> None:
    stub.objects["models/q/model.safetensors"] = stub.objects["models/q/model.safetensors"][:-100]
    with pytest.raises(ModelError, match="is damaged"):
        resolved_space(stub)


def test_download_that_breaks_off_leaves_nothing_and_may_pass(stub: StubS3) -> None:
    stub.cut_bodies = True
    with pytest.raises(Transient, match="s3://stub/models/q"):
        resolved_space(stub)
    assert copies() == []
    stub.cut_bodies = False
    resolved_space(stub)


def test_object_that_changes_after_the_listing_is_not_mixed_in(
    stub: StubS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = Bucket.objects

    def list_then_upload(self: Bucket, prefix: str) -> Iterator[ObjectVersion]:
        yield from listed(self, prefix)
        stub.objects["models/q/tokenizer.json"] += b" "

    monkeypatch.setattr(Bucket, "objects", list_then_upload)
    with pytest.raises(Transient, match="s3://stub/models/q"):
        resolved_space(stub)
    assert copies() == []


@pytest.mark.parametrize(
    ("name", "status", "kind", "message"),
    [
        ("models/none", None, ModelError, r"no checkpoint under s3://stub/models/none.*storage"),
        ("models/q", 400, ModelError, r"check model\.name and model\.storage"),
        ("models/q", 403, ModelError, "check the credentials"),
    ],
)
def test_bucket_without_the_model_error_says_what_to_do(
    stub: StubS3, name: str, status: int | None, kind: type[Exception], message: str
) -> None:
    stub.status = status
    with pytest.raises(kind, match=message):
        resolved_space(stub, name)


def test_copy_that_cannot_be_kept_names_the_folder(stub: StubS3, home: Path) -> None:
    home.write_text("a file where the folder should be")
    with pytest.raises(ModelError, match="HF_HOME"):
        resolved_space(stub)


@pytest.mark.slow
def test_processes_at_once_share_one_copy(stub: StubS3, home: Path) -> None:
    code = f"""
import huggingface_hub.constants
huggingface_hub.constants.HF_HOME = {str(home)!r}
from embedding_core.encoder import describe_model, model_spec
from embedding_core.identity import space_id
from embedding_core.store.storage import StorageSpec
spec = StorageSpec(endpoint_url={stub.url!r}, region="us-east-1", anonymous=True)
model = model_spec("s3://{BUCKET}/models/q", storage=spec)
print(space_id(describe_model(model).space))
"""
    command = [sys.executable, "-c", code]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    answers = {one.communicate()[0].strip() for one in running}
    assert answers == {resolved_space(stub)}
    assert len(copies()) == 1
    assert stub.requests.count(f"/{BUCKET}/models/q/model.safetensors") == 1


def upload(s3: S3Server, bucket: str, prefix: str, folder: Path) -> None:
    for path in (path for path in folder.rglob("*") if path.is_file()):
        s3.put(bucket, f"{prefix}/{path.relative_to(folder)}", path.read_bytes())


@pytest.mark.e2e
def test_real_server_checkpoint_adapter_and_latest(
    s3: S3Server, tmp_path: Path, tiny_qwen3: Path
) -> None:
    bucket = s3.new_bucket()
    old = as_sentence_transformer(
        Path(shutil.copytree(tiny_qwen3, tmp_path / "old")), {"pooling_mode": "mean"}
    )
    new = build_qwen3(tmp_path / "new", initializer_range=0.2)
    lora = build_adapter(tmp_path / "lora", new, "Qwen3Model")
    upload(s3, bucket, "c/2026-11-01", old)
    upload(s3, bucket, "c/2026-11-03", new)
    upload(s3, bucket, "lora", lora)
    latest = f"s3://{bucket}/c/latest"

    def load(name: str, adapter: str | None = None, storage: StorageSpec = s3.storage) -> Encoder:
        return Encoder.load(name, adapter=adapter, storage=storage, dtype="fp32", device="cpu")

    there, here = load(latest, f"s3://{bucket}/lora"), load(str(new), str(lora))
    assert there.space.revision == "2026-11-03"
    assert space_id(there.space) == space_id(here.space)
    np.testing.assert_array_equal(
        there.encode_documents(["words"]), here.encode_documents(["words"])
    )

    s3.put(bucket, "c/latest", b"2026-11-01\n")
    pinned = load(latest).space
    assert (pinned.revision, pinned.pooling) == ("2026-11-01", "mean")
    s3.put(bucket, "c/latest", b"2026-12-24")
    with pytest.raises(ModelError, match=f"no checkpoint under s3://{bucket}/c/2026-12-24"):
        load(latest)
    with pytest.raises(ModelError, match="no bucket 'no-such-bucket'"):
        load("s3://no-such-bucket/model")
    with pytest.raises(ModelError, match="no folder whose name starts with a date"):
        load(f"s3://{bucket}/nothing/latest")
