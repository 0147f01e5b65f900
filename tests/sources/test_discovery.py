"""Discovery on local folders, and globs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding_core.errors import RejectedInput, SetupError
from embedding_core.recipe import SourceSpec
from embedding_core.records import PassedOver
from embedding_core.sources import discover, read_documents
from embedding_core.sources.globs import Glob
from tests.s3 import S3Server


def write(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


def names_of(root: Path, *include: str) -> list[str]:
    spec = SourceSpec(uri=str(root), **({"include": include} if include else {}))
    return [os.path.relpath(file.uri, root) for file in discover(spec).files]


def test_default_globs_find_every_format_at_any_depth_sorted(tmp_path: Path) -> None:
    write(tmp_path, "b.jsonl", "a.txt", "x/y/c.md", "x/d.parquet", "e.jsonl.gz", "f.xyz", "g")
    write(tmp_path, "h.ndjson", "i.ndjson.gz", "UPPER.JSONL", "X/Y.Parquet")
    assert names_of(tmp_path) == [
        "UPPER.JSONL", "X/Y.Parquet", "a.txt", "b.jsonl", "e.jsonl.gz", "h.ndjson", "i.ndjson.gz",
        "x/d.parquet", "x/y/c.md",
    ]  # fmt: skip


def test_include_chooses_the_files(tmp_path: Path) -> None:
    write(tmp_path, "a.txt", "b.txt", "x/a.txt", "x/y/a.txt")
    assert names_of(tmp_path, "*.txt") == ["a.txt", "b.txt"]
    assert names_of(tmp_path, "x/**") == ["x/a.txt", "x/y/a.txt"]
    assert names_of(tmp_path, "b.txt", "x/*/a.txt") == ["b.txt", "x/y/a.txt"]


def test_hidden_files_and_folders_are_found_only_when_named(tmp_path: Path) -> None:
    write(tmp_path, ".git/a.txt", ".b.txt", "c.txt")
    assert names_of(tmp_path) == ["c.txt"]
    assert names_of(tmp_path, ".git/*.txt", "**/.b.txt") == [".b.txt", ".git/a.txt"]


JOB = [
    "_delta_log/0.jsonl", "_temporary/0/a.jsonl", "_SUCCESS", "x/_b.jsonl", ".c.jsonl",
    "_day=1/d.jsonl", "e.jsonl", "f.xyz",
]  # fmt: skip


def test_names_that_spark_passes_over_are_passed_over_and_counted(tmp_path: Path) -> None:
    write(tmp_path, *JOB)
    found = discover(SourceSpec(uri=str(tmp_path)))
    assert [os.path.relpath(one.uri, tmp_path) for one in found.files] == [
        "_day=1/d.jsonl", "e.jsonl",
    ]  # fmt: skip
    assert found.passed_over == PassedOver(hidden=5, unmatched=1)


def test_names_with_an_underscore_are_found_when_a_glob_writes_it(tmp_path: Path) -> None:
    write(tmp_path, *JOB)
    assert names_of(tmp_path, "_delta_log/*", "**/_b.jsonl") == ["_delta_log/0.jsonl", "x/_b.jsonl"]
    assert names_of(tmp_path, "_*/**/*") == [
        "_day=1/d.jsonl",
        "_delta_log/0.jsonl",
        "_temporary/0/a.jsonl",
    ]


@pytest.mark.parametrize(
    ("exclude", "left", "passed_over"),
    [
        ("x/a.txt", ["a.txt", "x/b.md", "x/y/a.txt"], PassedOver(excluded=1)),
        ("**/a.txt", ["x/b.md"], PassedOver(excluded=3)),
        ("x", ["a.txt"], PassedOver(excluded=1)),
        ("**/y", ["a.txt", "x/a.txt", "x/b.md"], PassedOver(excluded=1)),
        ("x/**", ["a.txt"], PassedOver(excluded=1)),
        ("nothing", ["a.txt", "x/a.txt", "x/b.md", "x/y/a.txt"], PassedOver()),
    ],
)
def test_exclude_leaves_out_files_and_whole_folders(
    tmp_path: Path, s3: S3Server, exclude: str, left: list[str], passed_over: PassedOver
) -> None:
    names = ["a.txt", "x/a.txt", "x/b.md", "x/y/a.txt"]
    write(tmp_path, *names)
    bucket = s3.new_bucket()
    for name in names:
        s3.put(bucket, f"in/{name}", name.encode())
    local = discover(SourceSpec(uri=str(tmp_path), exclude=(exclude,)))
    remote = discover(SourceSpec(uri=f"s3://{bucket}/in", exclude=(exclude,), storage=s3.storage))
    assert [os.path.relpath(one.uri, tmp_path) for one in local.files] == left
    assert [one.uri.removeprefix(f"s3://{bucket}/in/") for one in remote.files] == left
    assert local.passed_over == remote.passed_over == passed_over


def test_exclude_wins_over_a_hidden_name_that_include_writes(tmp_path: Path) -> None:
    write(tmp_path, ".git/a.txt", ".git/b.txt")
    spec = SourceSpec(uri=str(tmp_path), include=(".git/*.txt",), exclude=("**/b.*",))
    assert [Path(one.uri).name for one in discover(spec).files] == ["a.txt"]


def test_s3_counts_what_is_passed_over_as_a_folder_does(tmp_path: Path, s3: S3Server) -> None:
    write(tmp_path, *JOB)
    bucket = s3.new_bucket()
    for name in JOB:
        s3.put(bucket, name, b"x")
    remote = discover(SourceSpec(uri=f"s3://{bucket}", storage=s3.storage))
    assert remote.passed_over == discover(SourceSpec(uri=str(tmp_path))).passed_over
    assert len(remote.files) == 2


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("**/*.md", "a.md", True), ("**/*.md", "x/y/a.md", True), ("**/*.md", "x/.y/a.md", False),
        ("*.md", "x/a.md", False), ("a/**/b", "a/b", True), ("a/**/b", "a/x/y/b", True),
        ("a/**/b", "ab", False), ("**", "a/b/c", True), ("[ab].md", "b.md", True),
        ("[!ab].md", "b.md", False), ("?.md", "é.md", True), ("a?b", "a/b", False),
        ("**/*.md", "x//a.md", True), ("**/*.md", "x/../a.md", True), ("*/*.md", "../a.md", True),
        ("*.md", "new\nline.md", True), ("./a.md", "a.md", True), ("a.md", "A.md", False),
        ("[", "[", True), (".*", ".a", True), ("*", ".a", False), ("**/**/a", "a", True),
        ("*", "_a", False), ("**", "_x/a", False), ("_*", "_a", True), ("*", "_x=1", True),
        ("*/a", "_x=1/a", True), ("?a", "_a", False), ("[_]a", "_a", False),
    ],
)  # fmt: skip
def test_globs_match_as_in_a_shell(pattern: str, path: str, expected: bool) -> None:
    assert Glob.compile(pattern).matches(path) is expected


@given(parts=st.lists(st.text(st.sampled_from("ab.["), min_size=1), min_size=1, max_size=4))
def test_double_star_matches_every_path_without_hidden_parts(parts: list[str]) -> None:
    is_visible = all(not p.startswith(".") or p in (".", "..") for p in parts)
    assert Glob.compile("**").matches("/".join(parts)) is is_visible


def test_many_double_stars_do_not_take_for_ever() -> None:
    assert not Glob.compile("**/" * 30 + "b").matches("a/" * 200 + "a")


def test_a_single_file_is_taken_whatever_the_globs_say(tmp_path: Path) -> None:
    write(tmp_path, "notes.xyz")
    spec = SourceSpec(uri=str(tmp_path / "notes.xyz"))
    (file,) = discover(spec).files
    with pytest.raises(RejectedInput, match=r"unknown_format.*\.jsonl") as caught:
        list(read_documents(file, spec))
    assert caught.value.reason == "unknown_format"


def test_the_fingerprint_is_size_and_content_not_time_or_name(tmp_path: Path) -> None:
    write(tmp_path, "a.txt")
    spec = SourceSpec(uri=str(tmp_path))
    (before,) = discover(spec).files
    assert before.size_bytes == 5
    os.utime(tmp_path / "a.txt", (0, 0))
    assert discover(spec).files == (before,)
    (tmp_path / "a.txt").write_text("b.txt")
    (after,) = discover(spec).files
    assert after.size_bytes == before.size_bytes
    assert after.fingerprint != before.fingerprint


@pytest.mark.parametrize("uri", ["no/such/folder", "no.jsonl"])
def test_a_missing_source_says_what_to_do(tmp_path: Path, uri: str) -> None:
    with pytest.raises(SetupError, match=r"no source at .*correct source\.uri"):
        discover(SourceSpec(uri=str(tmp_path / uri)))


def test_an_empty_folder_names_the_folder_and_the_globs(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").mkdir()
    with pytest.raises(SetupError) as caught:
        discover(SourceSpec(uri=str(tmp_path), include=("*.jsonl", "*.md")))
    assert all(word in str(caught.value) for word in (str(tmp_path), "*.jsonl", "*.md"))


def test_a_folder_named_like_a_file_is_walked_not_read(tmp_path: Path) -> None:
    write(tmp_path, "x.jsonl/a.jsonl")
    assert names_of(tmp_path) == ["x.jsonl/a.jsonl"]


def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    write(tmp_path, "in/a.txt", "out/b.txt")
    (tmp_path / "in" / "link.txt").symlink_to(tmp_path / "out" / "b.txt")
    (tmp_path / "in" / "folder").symlink_to(tmp_path / "out")
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    (tmp_path / "out" / "back").symlink_to(tmp_path / "in")
    assert names_of(tmp_path / "in") == ["a.txt", "folder/b.txt", "link.txt"]


def test_files_that_cannot_be_read_are_listed_and_the_others_found(tmp_path: Path) -> None:
    write(tmp_path, "good.txt")
    (tmp_path / "dangling.txt").symlink_to(tmp_path / "nowhere")
    (tmp_path / "itself.txt").symlink_to("itself.txt")
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / os.fsdecode(b"caf\xe9.txt")).write_text("latin-1 name")
    found = discover(SourceSpec(uri=str(tmp_path)))
    assert [Path(file.uri).name for file in found.files] == ["good.txt"]
    assert [(Path(r.source_uri).name, r.reason, r.position) for r in found.unreadable] == [
        ("caf\\xe9.txt", "unreadable", None),
        ("dangling.txt", "unreadable", None),
        ("itself.txt", "unreadable", None),
        ("pipe.txt", "unreadable", None),
    ]
    assert found.unreadable[0].detail.endswith("rename it")


def test_a_source_of_only_unreadable_files_is_not_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "dangling.txt").symlink_to(tmp_path / "nowhere")
    found = discover(SourceSpec(uri=str(tmp_path)))
    assert found.files == ()
    assert len(found.unreadable) == 1


def test_a_folder_that_cannot_be_listed_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "a.txt", "locked/b.txt")
    scandir = os.scandir

    def refusing(path: Path) -> object:
        if path == tmp_path / "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(SetupError, match="locked"):
        discover(SourceSpec(uri=str(tmp_path)))


@pytest.mark.parametrize("name", ["a b.txt", "q'\".txt", "new\nline.txt", "%2f.txt", "é.txt"])
def test_odd_names_come_back_exactly(tmp_path: Path, name: str) -> None:
    write(tmp_path, name)
    spec = SourceSpec(uri=str(tmp_path))
    (file,) = discover(spec).files
    assert file.uri == f"{tmp_path}/{name}"
    assert [d.text for d in read_documents(file, spec)] == [name]  # type: ignore[union-attr]
