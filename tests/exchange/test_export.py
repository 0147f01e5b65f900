"""Tables out as files: what is in them, and what a destination that is taken or full does."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

from embedding_core.errors import EmbedlakeError, LakeError, SetupError, UsageError
from embedding_core.exports import destination as destination_module
from embedding_core.exports.destination import Destination, DigestedFile
from embedding_core.exports.exporter import KNOWN_EXPORTERS
from embedding_core.exports.folders import folder_names
from embedding_core.exports.spec import ExportSpec
from embedding_core.lake.spaces import switching
from embedding_core.lake.table import table_of
from embedding_core.recipe import ModelSpec, Recipe, Resources
from embedding_core.reports.report import said
from embedding_core.runs.exchange.claim import BEGUN
from embedding_core.runs.exchange.exporting import (
    ExportReport,
    begin_export,
    export,
    finish_export,
    write_shard,
)
from embedding_core.runs.maintenance import maintain
from embedding_core.runs.space.build import build_space
from embedding_core.store.storage import StorageSpec
from tests.driver import recipe_for, run, write_jsonl
from tests.s3 import S3Server

GROUPS = ["paper", "../up", "", "CON", "Paper", "a/b", "ü" * 300, None]


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """A table of 40 rows in two fragments, with typed metadata and a reject."""
    for name, first in (("a", 0), ("b", 20)):
        records: list[dict[str, Any]] = [
            {"id": f"d{n}", "text": f"naïve text 中文 {n}", "year": n, "group": GROUPS[n % 8],
             "at": "2024-01-02T03:04:05Z"}
            for n in range(first, first + 20)
        ]  # fmt: skip
        write_jsonl(tmp_path, f"{name}.jsonl", [*records, {"id": "x", "text": " "}])
    metadata = {"year": "int", "group": "string", "at": "timestamp"}
    made = recipe_for(tmp_path, source={"metadata": metadata})
    run(made)
    return made


def exported(recipe: Recipe, folder: Path, to: str = "parquet", **spec: Any) -> ExportReport:
    return export(recipe, ExportSpec.of({"to": to} | spec), str(folder))


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def table(recipe: Recipe, columns: Sequence[str] | None = None) -> pa.Table:
    return table_of(recipe).to_arrow(columns)


def test_export_parquet_has_every_row_and_column_of_the_table(
    recipe: Recipe, tmp_path: Path
) -> None:
    report = exported(recipe, tmp_path / "out", shard_rows=7)
    rows = ds.dataset(tmp_path / "out" / "data").to_table()
    expected = table(recipe)
    assert rows.schema.names == expected.schema.names
    assert rows.to_pylist() == expected.to_pylist()
    assert (report.rows, report.shards, report.rejects) == (40, 6, 2)
    assert rows.schema.field("vector").type.list_size == 32


def test_export_manifest_has_the_count_and_digest_of_each_file(
    recipe: Recipe, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    report = exported(recipe, out, "npy", shard_rows=9)
    manifest = json.loads((out / "manifest.json").read_bytes())
    listed = {file["path"]: file["sha256"] for file in manifest["files"]}
    there = digests(out)
    assert there.pop("manifest.json") == report.manifest_sha256
    assert listed == there
    sizes = {file["path"]: file["size_bytes"] for file in manifest["files"]}
    assert sizes == {name: (out / name).stat().st_size for name in there}
    rows = [file["rows"] for file in manifest["files"] if file["path"].endswith(".npy")]
    assert (sum(rows), manifest["rows"]) == (40, 40)
    assert manifest["space"]["space_id"] == table_of(recipe).space()[0]
    assert json.loads((out / "space.json").read_bytes()) == manifest["space"]
    assert Recipe.load(out / "recipe.yaml").model_dump() == recipe.model_dump()
    assert pq.read_table(out / "rejects.parquet").column("reason").to_pylist() == ["empty_text"] * 2


def test_export_columns_renamed_as_the_next_tool_wants_them(recipe: Recipe, tmp_path: Path) -> None:
    exported(
        recipe,
        tmp_path / "out",
        columns=("doc_id", "text", "vector"),
        rename={"doc_id": "prompt_id", "vector": "embedding"},
        as_list=True,
        dtype="float16",
    )
    rows = ds.dataset(tmp_path / "out" / "data").to_table()
    assert rows.schema.names == ["prompt_id", "text", "embedding"]
    assert rows.schema.field("embedding").type == pa.list_(pa.field("element", pa.float16()))
    assert rows.column("prompt_id").to_pylist() == table(recipe).column("doc_id").to_pylist()


def test_export_where_takes_the_rows_of_the_filter_alone(recipe: Recipe, tmp_path: Path) -> None:
    report = exported(recipe, tmp_path / "out", where="year >= '15' AND year < 27", shard_rows=5)
    years = ds.dataset(tmp_path / "out" / "data").to_table().column("year").to_pylist()
    assert years == list(range(15, 27))
    assert report.shards == 3


@pytest.mark.parametrize(("to", "suffix"), [("npy", "npy"), ("safetensors", "safetensors")])
def test_export_metadata_stands_beside_vectors_in_the_same_order(
    recipe: Recipe, tmp_path: Path, to: str, suffix: str
) -> None:
    exported(recipe, tmp_path / "out", to, shard_rows=11, rename={"vector": "embedding"})
    by_id = {row["chunk_id"]: row["vector"] for row in table(recipe).to_pylist()}
    shards = sorted((tmp_path / "out" / "data").glob(f"*.{suffix}"))
    for shard in shards:
        matrix = load_file(shard)["embedding"] if to == "safetensors" else np.load(shard)
        beside = pq.read_table(shard.with_suffix(".parquet"))
        assert "embedding" not in beside.schema.names
        assert [by_id[key] for key in beside.column("chunk_id").to_pylist()] == matrix.tolist()
    assert len(shards) == 4


def test_export_split_gives_each_value_a_folder_that_is_safe_and_unique(
    recipe: Recipe, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    report = exported(recipe, out, split_by="group", shard_rows=2)
    folders = json.loads((out / "manifest.json").read_bytes())["folders"]
    assert sorted(folders.values(), key=str) == sorted(GROUPS, key=str)
    assert sorted(path.name for path in (out / "data").iterdir()) == sorted(folders)
    assert len({name.casefold() for name in folders}) == report.folders == 8
    for name, value in folders.items():
        assert name.isascii() and len(name) <= 80 and name.casefold() != "con"
        rows = ds.dataset(out / "data" / name).to_table()
        assert set(rows.column("group").to_pylist()) == {value}
    assert ds.dataset(out / "data").count_rows() == 40


HOSTILE_NAMES = st.sampled_from(
    ["../x", "..", ".", "/etc/passwd", "C:\\x", "a\0b", "NUL", "nul.txt", "com1", "LPT9.a.b", "x.",
     "x ", "no-value", "a:b", "~", "-rf", "*", "a\nb", "．．/x", "a" * 300]
)  # fmt: skip
NAMES = st.none() | HOSTILE_NAMES | st.text(max_size=20) | st.text("./\\aA", max_size=4)


@given(st.lists(NAMES, unique=True, max_size=12))
def test_folder_of_any_values_is_inside_safe_and_of_one_value(values: list[str | None]) -> None:
    names = folder_names(values)
    assert list(names) == values
    assert len({name.casefold() for name in names.values()}) == len(values)
    for name in names.values():
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) and len(name) <= 120
        assert not name.endswith(".") and ".." not in (name, *name.split("/"))
        assert name.partition(".")[0].upper() not in WINDOWS_DEVICES


WINDOWS_DEVICES = {"CON", "PRN", "AUX", "NUL"} | {
    f"{n}{i}" for n in ("COM", "LPT") for i in range(10)
}


@pytest.mark.parametrize("to", list(KNOWN_EXPORTERS.built_in))
def test_export_the_same_version_gives_the_same_bytes(
    recipe: Recipe, tmp_path: Path, to: str
) -> None:
    for name in ("first", "second"):
        exported(recipe, tmp_path / name, to, shard_rows=7, split_by="group")
    assert digests(tmp_path / "first") == digests(tmp_path / "second")


def test_export_is_of_one_version_whatever_is_done_meanwhile(
    recipe: Recipe, tmp_path: Path
) -> None:
    exported(recipe, tmp_path / "before", shard_rows=7)
    destination = Destination.parse(str(tmp_path / "out"), recipe.lake.storage)
    begun = begin_export(recipe, ExportSpec(to="parquet", shard_rows=7), destination)
    first, *others = begun.todo()
    write_shard(begun.job, first)
    space = build_space(recipe, ModelSpec(name="hashing", dim=16), Resources(), "build")
    switching.promote(table_of(recipe), space.column, "me", wait_seconds=10)
    (tmp_path / "src" / "a.jsonl").unlink()
    changed = recipe.model_copy(update={"model": ModelSpec(name="hashing", dim=16)})
    run(changed, allow_removals=True)
    for shard in others:
        write_shard(begun.job, shard)
    finish_export(begun, len(others) + 1, 0.0)
    assert digests(tmp_path / "out") == digests(tmp_path / "before")


def test_export_goes_on_where_it_ended_with_the_same_bytes(recipe: Recipe, tmp_path: Path) -> None:
    exported(recipe, tmp_path / "whole", "safetensors", shard_rows=6)
    destination = Destination.parse(str(tmp_path / "out"), recipe.lake.storage)
    spec = ExportSpec(to="safetensors", shard_rows=6)
    begun = begin_export(recipe, spec, destination)
    for shard in begun.todo()[::2]:
        write_shard(begun.job, shard)
    # A shard without its receipt, one whose file is gone, one that was being written.
    (tmp_path / "out" / begun.job.workspace / "00002.json").unlink()
    next((tmp_path / "out" / "data").glob("part-00004.safetensors")).unlink()
    (tmp_path / "out" / "_export" / "x.partial").write_bytes(b"half")
    (tmp_path / "src" / "b.jsonl").unlink()
    run(recipe, allow_removals=True)
    with pytest.raises(UsageError, match="begun already") as refused:
        export(recipe, spec, str(tmp_path / "out"))
    assert "--resume" in said(refused.value) and "--overwrite" in said(refused.value)
    report = export(recipe, spec, str(tmp_path / "out"), resume=True)
    assert (report.shards, report.shards_written) == (7, 5)
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")
    assert export(recipe, spec, str(tmp_path / "out"), resume=True).shards_written == 0


def test_resume_begins_where_nothing_is(recipe: Recipe, tmp_path: Path) -> None:
    report = export(recipe, ExportSpec(to="arrow"), str(tmp_path / "out"), resume=True)
    assert report.shards_written == report.shards == 1


PARQUET = ExportSpec(to="parquet", shard_rows=9)
SOME_COLUMNS = ExportSpec(to="parquet", shard_rows=9, columns=("text", "vector"))


def before(patch: pytest.MonkeyPatch, method: str, path: str, action: Callable[[], object]) -> None:
    """Do something once, right before a destination's file is created or written."""
    real, left = getattr(Destination, method), [action]

    def changed(self: Destination, name: str, data: bytes) -> object:
        if left and name == path:
            left.pop()()
        return real(self, name, data)

    patch.setattr(Destination, method, changed)


def test_export_that_another_replaces_stops_and_leaves_it_whole(
    recipe: Recipe, tmp_path: Path
) -> None:
    destination = Destination.parse(str(tmp_path / "out"), recipe.lake.storage)
    first = begin_export(recipe, PARQUET, destination)
    written, *others = first.todo()
    write_shard(first.job, written)
    second = begin_export(recipe, SOME_COLUMNS, destination, overwrite=True)
    for shard in second.todo():
        write_shard(second.job, shard)
    for shard in others:
        with pytest.raises(SetupError, match=r"another export to .* was begun"):
            write_shard(first.job, shard)
    with pytest.raises(SetupError, match="another export"):
        finish_export(first, 1, 0.0)
    assert not (tmp_path / "out" / "manifest.json").exists()
    finish_export(second, 5, 0.0)
    export(recipe, SOME_COLUMNS, str(tmp_path / "fresh"))
    assert digests(tmp_path / "out") == digests(tmp_path / "fresh")


def test_export_that_another_replaces_while_it_ends_leaves_no_manifest(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    destination = Destination.parse(str(tmp_path / "out"), recipe.lake.storage)

    def replace() -> None:
        begin_export(recipe, SOME_COLUMNS, destination, overwrite=True)

    before(monkeypatch, "write", "manifest.json", replace)
    with pytest.raises(SetupError, match="another export"):
        export(recipe, PARQUET, str(tmp_path / "out"))
    assert not (tmp_path / "out" / "manifest.json").exists()
    export(recipe, SOME_COLUMNS, str(tmp_path / "out"), resume=True)
    export(recipe, SOME_COLUMNS, str(tmp_path / "fresh"))
    assert digests(tmp_path / "out") == digests(tmp_path / "fresh")


def test_export_that_begins_while_another_ends_is_refused(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before(monkeypatch, "create", BEGUN, lambda: export(recipe, PARQUET, str(tmp_path / "out")))
    with pytest.raises(UsageError, match="holds an export already"):
        export(recipe, SOME_COLUMNS, str(tmp_path / "out"))
    export(recipe, PARQUET, str(tmp_path / "fresh"))
    assert digests(tmp_path / "out") == digests(tmp_path / "fresh")


def test_exports_that_resume_the_same_at_once_give_the_same(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    destination = Destination.parse(str(tmp_path / "out"), recipe.lake.storage)
    begin_export(recipe, PARQUET, destination)

    def resume() -> None:
        export(recipe, PARQUET, str(tmp_path / "out"), resume=True)

    before(monkeypatch, "write", "manifest.json", resume)
    resume()
    export(recipe, PARQUET, str(tmp_path / "fresh"))
    assert digests(tmp_path / "out") == digests(tmp_path / "fresh")


@pytest.mark.parametrize("half", [None, b"", b'{"recipe": "te'])
def test_resume_of_an_export_killed_in_its_claim_begins(
    recipe: Recipe, tmp_path: Path, half: bytes | None
) -> None:
    """Killed when it had made the folder, the file, or half of it."""
    (tmp_path / "out" / "_export").mkdir(parents=True)
    if half is not None:
        (tmp_path / "out" / BEGUN).write_bytes(half)
    export(recipe, PARQUET, str(tmp_path / "out"), resume=True)
    export(recipe, PARQUET, str(tmp_path / "fresh"))
    assert digests(tmp_path / "out") == digests(tmp_path / "fresh")


@pytest.mark.parametrize("token", ["../../up", "", 7, None])
def test_resume_of_a_claim_whose_token_is_no_token_is_refused(
    recipe: Recipe, tmp_path: Path, token: object
) -> None:
    destination = Destination.parse(str(tmp_path / "out"), recipe.lake.storage)
    begin_export(recipe, PARQUET, destination)
    claim = json.loads((tmp_path / "out" / BEGUN).read_text())
    (tmp_path / "out" / BEGUN).write_text(json.dumps(claim | {"token": token}))
    with pytest.raises(SetupError, match="damaged"):
        export(recipe, PARQUET, str(tmp_path / "out"), resume=True)


@pytest.mark.parametrize("is_complete", [True, False])
def test_resume_with_another_spec_is_refused(
    recipe: Recipe, tmp_path: Path, is_complete: bool
) -> None:
    destination = Destination.parse(str(tmp_path / "out"), recipe.lake.storage)
    begun = begin_export(recipe, ExportSpec(to="jsonl"), destination)
    if is_complete:
        write_shard(begun.job, *begun.todo())
        finish_export(begun, 1, 0.0)
    with pytest.raises(UsageError, match="another to"):
        export(recipe, ExportSpec(to="arrow"), str(tmp_path / "out"), resume=True)


def test_resume_of_a_version_that_is_gone_says_so(recipe: Recipe, tmp_path: Path) -> None:
    destination = Destination.parse(str(tmp_path / "out"), recipe.lake.storage)
    begin_export(recipe, ExportSpec(to="jsonl"), destination)
    (tmp_path / "src" / "b.jsonl").unlink()
    run(recipe, allow_removals=True)
    table_of(recipe).dataset().cleanup_old_versions(retain_versions=1)
    with pytest.raises(LakeError, match="keep_hours") as refused:
        export(recipe, ExportSpec(to="jsonl"), str(tmp_path / "out"), resume=True)
    assert "--overwrite" in said(refused.value)


def test_resume_of_a_table_that_was_made_again_says_so(recipe: Recipe, tmp_path: Path) -> None:
    destination = Destination.parse(str(tmp_path / "out"), recipe.lake.storage)
    begin_export(recipe, ExportSpec(to="jsonl"), destination)
    shutil.rmtree(tmp_path / "lake")
    run(recipe)
    with pytest.raises(LakeError, match="replaced"):
        export(recipe, ExportSpec(to="jsonl"), str(tmp_path / "out"), resume=True)


def test_overwrite_leaves_nothing_of_the_export_before(recipe: Recipe, tmp_path: Path) -> None:
    exported(recipe, tmp_path / "out", "npy", split_by="group", shard_rows=3)
    with pytest.raises(UsageError, match="holds an export already") as refused:
        exported(recipe, tmp_path / "out")
    assert "--resume" in said(refused.value) and "--overwrite" in said(refused.value)
    export(recipe, ExportSpec(to="parquet"), str(tmp_path / "out"), overwrite=True)
    exported(recipe, tmp_path / "fresh")
    assert digests(tmp_path / "out") == digests(tmp_path / "fresh")
    assert [path.name for path in (tmp_path / "out" / "data").iterdir()] == ["part-00000.parquet"]


@pytest.mark.parametrize("overwrite", [True, False])
def test_export_into_a_folder_of_other_files_is_refused(
    recipe: Recipe, tmp_path: Path, overwrite: bool
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="no export"):
        export(recipe, ExportSpec(to="npy"), str(tmp_path / "mine"), overwrite=overwrite)
    with pytest.raises(UsageError, match="is a file"):
        export(recipe, ExportSpec(to="npy"), str(tmp_path / "mine" / "thesis.txt"))
    assert digests(tmp_path / "mine").keys() == {"thesis.txt"}


@pytest.mark.parametrize("how", [{}, {"overwrite": True}, {"resume": True}])
def test_export_into_a_folder_with_a_manifest_of_something_else_is_refused(
    recipe: Recipe, tmp_path: Path, how: dict[str, bool]
) -> None:
    """Web pages have a file of this name, too, and a folder of data."""
    page = tmp_path / "page"
    (page / "data").mkdir(parents=True)
    (page / "data" / "users.db").write_text("mine")
    (page / "manifest.json").write_text('{"name": "a web page"}')
    before = digests(page)
    with pytest.raises(SetupError, match=r"is no manifest of an export.*name another folder"):
        export(recipe, ExportSpec(to="npy"), str(page), **how)
    assert digests(page) == before


@pytest.mark.parametrize("link", ["data", "_export", "data/group"])
def test_overwrite_touches_nothing_behind_a_link(recipe: Recipe, tmp_path: Path, link: str) -> None:
    """Whoever may write to the destination may have put it there."""
    out, home = tmp_path / "out", tmp_path / "home"
    exported(recipe, out, split_by="group")
    home.mkdir()
    (home / "part-00000.parquet").write_text("mine")
    (home / "thesis.txt").write_text("mine")
    folder = next((out / "data").glob("paper*")) if link == "data/group" else out / link
    shutil.rmtree(folder, ignore_errors=True)
    folder.symlink_to(home)
    before = digests(home)
    with pytest.raises(UsageError, match=r"is a link, which would lead out of .*; remove it"):
        export(recipe, ExportSpec.of({"to": "parquet", "split_by": "group"}), str(out), True)
    assert digests(home) == before


def test_overwrite_with_fewer_columns_leaves_no_space_of_the_export_before(
    recipe: Recipe, tmp_path: Path
) -> None:
    exported(recipe, tmp_path / "out")
    spec = ExportSpec(to="parquet", columns=("text",))
    export(recipe, spec, str(tmp_path / "out"), overwrite=True)
    export(recipe, spec, str(tmp_path / "fresh"))
    assert digests(tmp_path / "out") == digests(tmp_path / "fresh")


def test_overwrite_that_was_cut_off_never_looks_complete(recipe: Recipe, tmp_path: Path) -> None:
    """Killed after its claim was written, before the old manifest was removed; then resumed."""
    out = tmp_path / "out"
    exported(recipe, out, "npy")
    manifest = (out / "manifest.json").read_bytes()
    spec = ExportSpec(to="npy", shard_rows=9)
    destination = Destination.parse(str(out), recipe.lake.storage)
    begin_export(recipe, spec, destination, overwrite=True)
    (out / "manifest.json").write_bytes(manifest)
    begun = begin_export(recipe, spec, destination, resume=True)
    assert not (out / "manifest.json").exists()
    for shard in begun.todo():
        write_shard(begun.job, shard)
    finish_export(begun, 5, 0.0)
    export(recipe, spec, str(tmp_path / "fresh"))
    assert digests(out) == digests(tmp_path / "fresh")


def test_resume_of_a_complete_export_removes_what_a_kill_left(
    recipe: Recipe, tmp_path: Path
) -> None:
    """Killed after the claim was removed, before the receipts were."""
    exported(recipe, tmp_path / "out")
    before = digests(tmp_path / "out")
    (tmp_path / "out" / "_export").mkdir()
    (tmp_path / "out" / "_export" / "00000.json").write_text("[]")
    export(recipe, ExportSpec(to="parquet"), str(tmp_path / "out"), resume=True)
    assert digests(tmp_path / "out") == before


@pytest.mark.parametrize("uri", ["s3://", "s3:///folder"])
def test_export_to_no_bucket_is_refused(recipe: Recipe, uri: str) -> None:
    with pytest.raises(UsageError, match="names no bucket; write s3://bucket/prefix"):
        export(recipe, ExportSpec(to="npy"), uri)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"to": "csv"}, "csv.*parquet, jsonl"),
        ({"columns": ("doc_id", "nope")}, "columns names 'nope'.*chunk_id"),
        ({"where": "nope = 1"}, "'nope'.*no such column"),
        ({"where": "year >"}, "cannot be used"),
        ({"where": " "}, "filter is empty"),
        ({"where": "year > 1000"}, "no row of the 40.*year > 1000"),
        ({"split_by": "nope"}, "split_by names 'nope'.*chunk_id"),
        ({"split_by": "at"}, "timestamp.*strings, ints or bools"),
        ({"rename": {"nope": "x"}}, "rename names 'nope'"),
        ({"rename": {"text": "doc_id"}}, "'doc_id' would be the name of two columns"),
        ({"columns": ("text", "text")}, "'text' would be the name of two columns"),
        ({"columns": ()}, "at least"),
        ({"rename": {"text": ""}}, "no new name"),
        ({"shard_rows": 0}, "shard_rows is 0"),
        ({"dtype": "float64"}, "dtype is 'float64'"),
        ({"to": "npy", "columns": ("text",)}, "npy holds vectors"),
    ],
)
def test_export_wrong_options_are_refused_before_anything_is_written(
    recipe: Recipe, tmp_path: Path, spec: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        exported(recipe, tmp_path / "out", **{"to": "parquet"} | spec)
    assert not (tmp_path / "out").exists()


def test_export_too_many_values_to_split_by_are_refused(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedding_core.runs.exchange.shards.MOST_FOLDERS", 7)
    with pytest.raises(UsageError, match="more than 7 values"):
        exported(recipe, tmp_path / "out", split_by="group")


def test_export_a_table_without_rows_says_so(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"a": " "})
    recipe = recipe_for(tmp_path)
    run(recipe)
    with pytest.raises(UsageError, match="no rows to export"):
        exported(recipe, tmp_path / "out")


def test_export_rows_without_vectors_are_refused(recipe: Recipe, tmp_path: Path) -> None:
    space = build_space(recipe, ModelSpec(name="hashing", dim=16), Resources(), "build")
    switching.promote(table_of(recipe), space.column, "me", wait_seconds=10)
    write_jsonl(tmp_path, "c.jsonl", {"new": "a row that the old space has no vector of"})
    run(recipe.model_copy(update={"model": ModelSpec(name="hashing", dim=16)}))
    (hidden,) = (name for name in table(recipe).schema.names if name.startswith("vector__"))
    with pytest.raises(LakeError, match="no vector"):
        exported(recipe, tmp_path / "out", columns=("chunk_id", hidden))
    with pytest.raises(UsageError, match="different spaces"):
        exported(recipe, tmp_path / "two", columns=("vector", hidden))


def test_digest_of_a_file_is_of_what_was_written_whatever_becomes_of_the_buffer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Digests are taken behind the writer, of some bytes at a time."""
    monkeypatch.setattr(destination_module, "DIGEST_BYTES", 3_000)
    destination = Destination.parse(str(tmp_path / "out"), StorageSpec())
    buffer = bytearray(1_000)
    with destination.new_files(["a", "b"], "_export") as files:
        for number in range(50):
            buffer[:] = bytes([number]) * len(buffer)
            for file in files:
                file.write(memoryview(buffer))
            files[1].write(b"more")
        early = files[0].sha256
    for file, path in zip(files, ("a", "b"), strict=True):
        data = (tmp_path / "out" / path).read_bytes()
        assert (file.sha256, file.size_bytes) == (hashlib.sha256(data).hexdigest(), len(data))
    assert early == files[0].sha256


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_export_a_full_disk_says_so_and_goes_on_later(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    exported(recipe, tmp_path / "whole", shard_rows=9)
    room, write = [2], DigestedFile.write

    def full(self: DigestedFile, data: bytes) -> int:
        room[0] -= self.size_bytes == 0
        if room[0] < 0:
            raise OSError(number, os.strerror(number))
        return write(self, data)

    with monkeypatch.context() as patch:
        patch.setattr(DigestedFile, "write", full)
        with pytest.raises(SetupError, match="make room") as failed:
            exported(recipe, tmp_path / "out", shard_rows=9)
    assert "--resume" in said(failed.value)
    assert list((tmp_path / "out").rglob("*.partial")) == []
    spec = ExportSpec(to="parquet", shard_rows=9)
    assert export(recipe, spec, str(tmp_path / "out"), resume=True).shards_written == 3
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")


def test_export_to_a_place_with_credentials_is_refused(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"a": "a text"})
    recipe = recipe_for(tmp_path)
    run(recipe)
    with pytest.raises(UsageError, match="holds credentials") as refused:
        export(recipe, ExportSpec(to="jsonl"), "s3://key:geheim@bucket/out")
    assert "geheim" not in str(refused.value)
    with pytest.raises(UsageError, match="nothing can be exported to ftp"):
        export(recipe, ExportSpec(to="jsonl"), "ftp://host/out")


def test_export_to_s3_is_the_same_and_goes_on(recipe: Recipe, tmp_path: Path, s3: S3Server) -> None:
    at_s3 = recipe.model_copy(
        update={"lake": recipe.lake.model_copy(update={"storage": s3.storage})}
    )
    spec = ExportSpec(to="npy", shard_rows=9, split_by="group")
    uri = f"s3://{s3.new_bucket()}/deep/out"
    destination = Destination.parse(uri, s3.storage)
    begun = begin_export(at_s3, spec, destination)
    for shard in begun.todo()[:3]:
        write_shard(begun.job, shard)
    with pytest.raises(UsageError, match="begun already"):
        export(at_s3, spec, uri)
    report = export(at_s3, spec, uri, resume=True)
    assert report.shards - report.shards_written == 3
    local = export(at_s3, spec, str(tmp_path / "out"))
    assert report.manifest_sha256 == local.manifest_sha256
    there = {
        path: hashlib.sha256(destination.read(path) or b"").hexdigest()
        for path in destination.paths()
    }
    assert there == digests(tmp_path / "out")
    export(at_s3, ExportSpec(to="arrow"), uri, overwrite=True)
    assert list(destination.paths("data")) == ["data/part-00000.arrow"]


def test_export_to_s3_an_upload_that_breaks_off_leaves_no_object(
    recipe: Recipe, s3: S3Server
) -> None:
    destination = Destination.parse(f"s3://{s3.new_bucket()}/out", s3.storage)
    with pytest.raises(EmbedlakeError), destination.new_files(["a/b"], "_export") as (file,):
        file.write(b"half")
        raise LakeError("the table broke off")
    assert destination.paths() == {}


def test_export_of_a_maintained_table_is_of_its_rows(recipe: Recipe, tmp_path: Path) -> None:
    maintain(recipe)
    report = exported(recipe, tmp_path / "out", where="`group` = 'paper'", split_by="group")
    assert (report.rows, report.folders) == (5, 1)


KILLED = """
import os, signal, sys
from embedding_core.exports.destination import Destination, DigestedFile
from embedding_core.exports.spec import ExportSpec
from embedding_core.recipe import Recipe
from embedding_core.runs.exchange.exporting import export

steps = [int(sys.argv[3])]

def dying(cls, name):
    method = getattr(cls, name)
    def step(*arguments, **options):
        if steps[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        steps[0] -= 1
        return method(*arguments, **options)
    setattr(cls, name, step)

for cls, name in ((DigestedFile, "write"), (Destination, "write"), (Destination, "delete")):
    dying(cls, name)
export(Recipe.load(sys.argv[1]), ExportSpec(to="npy", shard_rows=9), sys.argv[2], resume=True)
"""


@pytest.mark.slow
def test_export_killed_at_any_step_gives_the_same_bytes_in_the_end(
    recipe: Recipe, tmp_path: Path
) -> None:
    exported(recipe, tmp_path / "whole", "npy", shard_rows=9)
    for step in (0, 1, 17, 40, 71, 74):
        program = [sys.executable, "-c", KILLED, recipe.model_dump_json(), str(tmp_path / "out")]
        killed = subprocess.run([*program, str(step)], capture_output=True, check=False)
        assert killed.returncode == -signal.SIGKILL, (step, killed.stderr)
    export(recipe, ExportSpec(to="npy", shard_rows=9), str(tmp_path / "out"), resume=True)
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")
