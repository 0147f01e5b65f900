"""Where a checkpoint is found: folders, ``latest``, the hub's cache; what is kept of digests."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from embedding_core.encoder import Encoder
from embedding_core.encoder.checkpoint import cache
from embedding_core.encoder.checkpoint.locate import locate
from embedding_core.errors import ModelError
from embedding_core.identity import space_id
from tests.checkpoints import build_qwen3
from tests.models import describe


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Hugging Face's home, empty, and no hub."""
    folder = tmp_path / "hf"
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(folder))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return folder


@pytest.fixture
def dated(tmp_path: Path) -> Path:
    """A folder of checkpoints, of which only names matter."""
    folder = tmp_path / "checkpoints"
    for name in ("2026-11-01", "2026-11-03T10-00", "2026-11-03T09-59", "20261102", "best", "9"):
        (folder / name).mkdir(parents=True)
    (folder / "2027-01-01.txt").write_text("no folder")
    (folder / "2026-13-01").mkdir()
    return folder


def test_latest_absent_the_newest_dated_folder(dated: Path) -> None:
    located = locate(f"{dated}/latest", None)
    assert (located.directory, located.revision) == (
        dated / "2026-11-03T10-00",
        "2026-11-03T10-00",
    )
    (dated / "20261103").mkdir()
    assert locate(f"{dated}/latest", None).revision == "2026-11-03T10-00"
    (dated / "20261104").mkdir()
    assert locate(f"{dated}/latest/", None).revision == "20261104"


def test_latest_link_file_or_folder_wins_over_dates(dated: Path, tmp_path: Path) -> None:
    latest = dated / "latest"
    latest.symlink_to("best")
    assert locate(str(latest), None).directory == dated / "best"
    assert locate(str(latest), None).revision == "best"
    latest.unlink()
    latest.write_text("2026-11-01\n")
    assert locate(str(latest), None).directory == dated / "2026-11-01"
    latest.unlink()
    latest.mkdir()
    assert (locate(str(latest), None).directory, locate(str(latest), None).revision) == (
        latest,
        None,
    )
    latest.rmdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    latest.symlink_to(elsewhere)
    assert locate(str(latest), None).revision == str(elsewhere)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "must hold the name"),
        ("../elsewhere", "must hold the name"),
        ("latest", "must hold the name"),
        ("2026-11-01\n2026-11-03\n", "must hold the name"),
        ("2026-12-24", "there is no folder"),
    ],
)
def test_latest_file_that_names_nothing_model_error(
    dated: Path, content: str, message: str
) -> None:
    (dated / "latest").write_text(content)
    with pytest.raises(ModelError, match=message):
        locate(f"{dated}/latest", None)


def test_latest_of_nothing_model_error(dated: Path, tmp_path: Path) -> None:
    (dated / "latest").symlink_to("gone")  # never another checkpoint in its place
    with pytest.raises(ModelError, match="is a link to gone, which is not there"):
        locate(f"{dated}/latest", None)
    with pytest.raises(ModelError, match="no folder whose name starts with a date"):
        locate(f"{tmp_path}/latest", None)
    with pytest.raises(ModelError, match="name the folder of the checkpoints"):
        locate(f"{tmp_path}/nowhere/latest", None)


def test_space_is_of_the_content_wherever_it_lies(tiny_qwen3: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_qwen3, tmp_path / "checkpoints" / "2026-11-01")
    named = describe(f"{copy.parent}/latest").space
    assert named.revision == "2026-11-01"
    assert space_id(named) == space_id(describe(str(tiny_qwen3)).space)


@pytest.mark.slow
def test_folder_that_sentence_transformers_saved_loads(minilm: str, tmp_path: Path) -> None:
    """What a Trainer leaves: modules.json, 1_Pooling, prompts, and files of its own."""
    from sentence_transformers import SentenceTransformer

    base = describe(minilm).directory
    saved = tmp_path / "2026-11-03"
    peer = SentenceTransformer(str(base), device="cpu", prompts={"query": "q: ", "document": ""})
    peer.save(str(saved))
    (saved / "training_args.bin").write_bytes(b"a pickle")
    encoder = Encoder.load(f"{tmp_path}/latest", dtype="fp32", device="cpu")
    assert (encoder.space.revision, encoder.space.query_prompt) == ("2026-11-03", "q: ")
    texts = ["one", "two of them"]
    ours = encoder.encode_queries(texts)
    assert (ours * peer.encode_query(texts)).sum(axis=1).min() >= 0.99999


def fake_hub(home: Path, commits: dict[str, Path], main: str) -> None:
    """The hub's own cache of ``owner/model``: blobs by SHA-256, snapshots of links, refs/main."""
    model = home / "hub" / "models--owner--model"
    for commit, checkpoint in commits.items():
        snapshot = model / "snapshots" / commit
        snapshot.mkdir(parents=True)
        (model / "blobs").mkdir(exist_ok=True)
        for file in checkpoint.iterdir():
            blob = model / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
            shutil.copy(file, blob)
            (snapshot / file.name).symlink_to(os.path.relpath(blob, snapshot))
    move_main(home, main)


def move_main(home: Path, commit: str) -> None:
    refs = home / "hub" / "models--owner--model" / "refs"
    refs.mkdir(exist_ok=True)
    (refs / "main").write_text(commit)


def test_hub_branch_resolves_to_the_commit_it_is_at(
    home: Path, tiny_qwen3: Path, tmp_path: Path
) -> None:
    old, new = "a" * 40, "b" * 40
    other = build_qwen3(tmp_path / "other", initializer_range=0.2)
    fake_hub(home, {old: tiny_qwen3, new: other}, old)
    first = describe("owner/model").space
    assert first.revision == old
    assert space_id(first) == space_id(describe(str(tiny_qwen3)).space)
    move_main(home, new)
    moved = describe("owner/model", revision="main").space
    assert moved.revision == new and space_id(moved) != space_id(first)
    assert describe("owner/model", revision=old).space == first


def test_name_with_a_slash_is_a_hub_id_whatever_folder_has_that_name_here(
    home: Path, tiny_qwen3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_qwen3, tmp_path / "owner" / "model")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=r"from the hub.*write \./owner/model"):
        locate("owner/model", None)
    with pytest.raises(ModelError, match=r"write \./owner$"):
        locate("owner", None)
    assert locate("./owner/model", None).directory == tmp_path.resolve() / "owner" / "model"
    fake_hub(home, {"a" * 40: tiny_qwen3}, "a" * 40)
    assert locate("owner/model", None).directory.is_relative_to(home)


def test_hub_file_that_is_not_what_was_published_refused(home: Path, tiny_qwen3: Path) -> None:
    fake_hub(home, {"a" * 40: tiny_qwen3}, "a" * 40)
    weights = home / "hub/models--owner--model/snapshots" / ("a" * 40) / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1  # of the right size, and a safetensors file still
    weights.resolve().write_bytes(content)
    with pytest.raises(ModelError, match=r"is damaged: its SHA-256 is .* the hub published"):
        describe("owner/model")


# Digests: kept on disk for large files, so that a fresh process need not read them.


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that counts as large and was written a while ago."""
    monkeypatch.setattr(cache, "KEPT_BYTES", 1)
    monkeypatch.setattr(cache, "SETTLED_NS", -(10**12))
    path = tmp_path / "weights"
    path.write_bytes(b"weights")
    return path


def _fresh(path: Path) -> str:
    """The digest as a fresh process takes it: no digest in memory was taken by this hasher."""
    return cache.file_digest(path, lambda file: cache.sha256(file))


def test_digest_of_an_unchanged_large_file_is_not_taken_again(large: Path) -> None:
    expected = hashlib.sha256(b"weights").hexdigest()
    assert _fresh(large) == expected
    assert cache.file_digest(large, lambda _: pytest.fail("the file was read again")) == expected


def test_text_made_of_a_file_is_kept_until_the_file_changes(large: Path) -> None:
    made: list[str] = []

    def make() -> str:
        made.append(large.read_text())
        return f"of {made[-1]}\n"

    assert cache.kept_text(large, "kind", make) == "of weights\n"
    assert cache.kept_text(large, "kind", make) == "of weights\n"
    assert made == ["weights"]
    cache.kept_text(large, "another kind", make)
    large.write_bytes(b"others!")
    assert cache.kept_text(large, "kind", make) == "of others!\n"
    assert made == ["weights", "weights", "others!"]


def test_text_that_is_damaged_on_disk_is_made_again(large: Path) -> None:
    cache.kept_text(large, "kind", lambda: "good")
    for entry in (cache.cache_folder() / "texts").iterdir():
        entry.write_text(entry.read_text()[:-1])
    assert cache.kept_text(large, "kind", lambda: "good") == "good"


def test_text_of_a_file_just_written_is_not_kept(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("1")
    texts = iter(["first", "second"])
    assert cache.kept_text(tmp_path / "file", "kind", lambda: next(texts)) == "first"
    assert cache.kept_text(tmp_path / "file", "kind", lambda: next(texts)) == "second"


def test_digest_of_a_changed_file_is_new_whatever_its_time_says(large: Path) -> None:
    before, stat = _fresh(large), large.stat()
    large.write_bytes(b"WEIGHTS")
    os.utime(large, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert _fresh(large) == hashlib.sha256(b"WEIGHTS").hexdigest() != before


@pytest.mark.parametrize("damage", ["", "no digest", "{flipped}", "\xff\xfe"])
def test_digest_cache_deleted_or_damaged_costs_only_time(
    large: Path, home: Path, damage: str
) -> None:
    expected = _fresh(large)
    [entry] = (home / "embedlake" / "digests").iterdir()
    whole = entry.read_text()
    flipped = ("0" if whole[0] != "0" else "1") + whole[1:]
    entry.write_text(damage.format(flipped=flipped), encoding="latin-1")
    assert _fresh(large) == expected
    assert entry.read_text() == whole
    shutil.rmtree(home / "embedlake")
    assert _fresh(large) == expected


def test_digest_of_a_file_just_written_is_not_kept(
    large: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be written once more within the clock's tick."""
    monkeypatch.setattr(cache, "SETTLED_NS", 10**18)
    _fresh(large)
    assert not (home / "embedlake").exists()


def test_digest_cache_that_cannot_be_written_costs_only_time(large: Path, home: Path) -> None:
    home.write_text("a file where the folder should be")
    assert _fresh(large) == hashlib.sha256(b"weights").hexdigest()


@pytest.mark.slow
def test_digests_of_several_processes_at_once_agree(large: Path, tmp_path: Path) -> None:
    large.write_bytes(bytes(cache.KEPT_BYTES + 20_000_000))
    past = time.time() - 100
    os.utime(large, (past, past))
    code = f"""
from pathlib import Path
from embedding_core.encoder.checkpoint import cache
cache.SETTLED_NS = 0
print(cache.file_digest(Path({str(large)!r})))
"""
    environment = {**os.environ, "HF_HOME": str(tmp_path / "shared")}
    command = [sys.executable, "-c", code]
    running = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    answers = {one.communicate()[0].strip() for one in running}
    assert answers == {hashlib.sha256(large.read_bytes()).hexdigest()}
    [entry] = (tmp_path / "shared" / "embedlake" / "digests").iterdir()
    assert entry.read_text().split()[0] in answers


def test_load_takes_a_bare_name_of_a_folder_here_but_never_one_with_a_slash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_qwen3: Path
) -> None:
    (tmp_path / "owner").mkdir()
    (tmp_path / "mine").symlink_to(tiny_qwen3)
    (tmp_path / "owner" / "name").symlink_to(tiny_qwen3)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert Encoder.load("mine", device="cpu").space.model == "./mine"
    with pytest.raises(ModelError, match=r"\./owner/name"):
        Encoder.load("owner/name", device="cpu")
