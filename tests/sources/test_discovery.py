"""Discovery on local folders, and globs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding_core.errors import RejectedInput, SetupError, UsageError
from embedding_core.recipe import SourceSpec
from embedding_core.sources import discover, read_documents
from embedding_core.sources.globs import Glob


def write(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


def names_of(root: Path, *include: str) -> list[str]:
    spec = SourceSpec(uri=str(root), **({"include": include} if include else {}))
    return [os.path.relpath(file.uri, root) for file in discover(spec).files]


def test_default_globs_find_every_format_at_any_depth_sorted(tmp_path: Path) -> None:
    write(tmp_path, "b.jsonl", "a.txt", "x/y/c.md", "x/d.parquet", "e.jsonl.gz", "f.csv", "g")
    assert names_of(tmp_path) == ["a.txt", "b.jsonl", "e.jsonl.gz", "x/d.parquet", "x/y/c.md"]


def test_include_chooses_the_files(tmp_path: Path) -> None:
    write(tmp_path, "a.txt", "b.txt", "x/a.txt", "x/y/a.txt")
    assert names_of(tmp_path, "*.txt") == ["a.txt", "b.txt"]
    assert names_of(tmp_path, "x/**") == ["x/a.txt", "x/y/a.txt"]
    assert names_of(tmp_path, "b.txt", "x/*/a.txt") == ["b.txt", "x/y/a.txt"]


def test_hidden_files_and_folders_are_found_only_when_named(tmp_path: Path) -> None:
    write(tmp_path, ".git/a.txt", ".b.txt", "c.txt")
    assert names_of(tmp_path) == ["c.txt"]
    assert names_of(tmp_path, ".git/*.txt", "**/.b.txt") == [".b.txt", ".git/a.txt"]


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
    write(tmp_path, "notes.csv")
    spec = SourceSpec(uri=str(tmp_path / "notes.csv"))
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
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / os.fsdecode(b"caf\xe9.txt")).write_text("latin-1 name")
    found = discover(SourceSpec(uri=str(tmp_path)))
    assert [Path(file.uri).name for file in found.files] == ["good.txt"]
    assert [(Path(r.source_uri).name, r.reason, r.position) for r in found.unreadable] == [
        ("caf\\xe9.txt", "unreadable", None),
        ("dangling.txt", "unreadable", None),
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


def test_a_wrong_template_is_refused_before_anything_is_listed(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"source\.text"):
        discover(SourceSpec(uri=str(tmp_path), text="{a.b}"))
