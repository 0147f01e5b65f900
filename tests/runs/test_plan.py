"""What a plan says and why; removals that need leave; files that moved."""

from __future__ import annotations

import gzip
import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedding_core.errors import LakeError, SetupError
from embedding_core.lake import ledger
from embedding_core.lake.table import table_of
from embedding_core.recipe import Recipe
from embedding_core.reports.plan import PlanView
from embedding_core.runs.embed import estimate
from embedding_core.runs.embed.planning import plan
from embedding_core.runs.embed.units import work_units
from embedding_core.runs.table_status import file_lines
from tests.driver import recipe_for, rejects, rows, run, texts, write_jsonl
from tests.runs.test_reuse import check_vectors
from tests.sources.stub_s3 import BUCKET, stub_s3


def numbered(folder: Path, n_files: int) -> list[Path]:
    return [
        write_jsonl(folder, f"{n:02}.jsonl", {f"d{n}": f"text number {n}"}) for n in range(n_files)
    ]


def why(recipe: Recipe) -> str:
    (planned,) = plan(recipe).files
    return planned.why


# Why a file is in the list


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"source": {"text": "{text}!"}}, "text template changed"),
        ({"source": {"id": None}}, "id field changed"),
        ({"chunk": {"max_tokens": 16}}, "chunking changed"),
        ({"model": {"over_length": "split"}}, "length policy changed"),
        (
            {"chunk": {"overlap": 2}, "source": {"text": "{id} {text}"}},
            "text template changed, chunking changed",
        ),
    ],
)
def test_plan_changed_rules_are_named(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"x": "words"})
    run(recipe_for(tmp_path))
    assert why(recipe_for(tmp_path, **changes)) == reason


def test_plan_content_and_rules_changed_names_both(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"x": "words"})
    run(recipe_for(tmp_path))
    write_jsonl(tmp_path, "a.jsonl", {"x": "other words"})
    assert why(recipe_for(tmp_path)) == "content changed"
    assert why(recipe_for(tmp_path, chunk={"max_tokens": 16})) == (
        "content changed, chunking changed"
    )


def test_plan_tokenizer_changed_is_named_from_what_the_ledger_kept(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"x": "words"})
    recipe = recipe_for(tmp_path)
    run(recipe)
    table = table_of(recipe)
    rules = ledger.known_rules(ledger.open_ledger(table))
    (known,) = rules
    other = rules[known] | {"tokenizer": "another"}
    table.lake.table("docs__files").dataset().update_metadata(
        {ledger.RULES_KEY + known: json.dumps(other)}
    )
    smaller = recipe_for(tmp_path, chunk={"max_tokens": 16})
    assert why(smaller) == "chunking changed, tokenizer changed"


def test_plan_ledger_of_an_older_embedlake_is_still_read(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"x": "words"})
    recipe = recipe_for(tmp_path)
    run(recipe)
    (known,) = ledger.known_rules(ledger.open_ledger(table_of(recipe)))
    old = table_of(recipe).lake.table("docs__files").dataset()
    old.update_metadata({ledger.RULES_KEY + known: None})
    assert why(recipe_for(tmp_path, chunk={"max_tokens": 16})).startswith("rules changed (text")


def test_plan_rules_that_a_disk_damaged_are_as_unknown_as_those_nobody_kept(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"x": "words"})
    recipe = recipe_for(tmp_path)
    run(recipe)
    (known,) = ledger.known_rules(ledger.open_ledger(table_of(recipe)))
    lines = table_of(recipe).lake.table("docs__files").dataset()
    lines.update_metadata({ledger.RULES_KEY + known: '{"chunk": '})
    assert plan(recipe).is_empty
    assert why(recipe_for(tmp_path, chunk={"max_tokens": 16})).startswith("rules changed (text")


def test_plan_counts_chunks_and_tokens_of_a_sample(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", {f"d{n}": "word " * 40 for n in range(20)})
    planned = plan(recipe_for(tmp_path))
    report = run(recipe_for(tmp_path))
    assert planned.estimated_chunks == report.chunks == 40
    assert planned.estimated_tokens == report.tokens
    assert plan(recipe_for(tmp_path, chunk={"max_tokens": 16})).estimated_chunks == 60


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "parquet"])
def test_plan_estimates_by_stored_bytes_whatever_the_format(tmp_path: Path, kind: str) -> None:
    """A tenth of a record is its text, and compressed files are a tenth of what is in them."""
    random_one = random.Random(0)
    words = [f"word{n}" for n in range(50)]
    records = [
        {"id": f"d{n}", "text": " ".join(random_one.choices(words, k=20)), "other": "none " * 300}
        for n in range(1_000)
    ]
    path = write_jsonl(tmp_path, "a.jsonl", records)
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(records), tmp_path / "src" / "a.parquet")
    elif kind == "jsonl.gz":
        (tmp_path / "src" / "a.jsonl.gz").write_bytes(gzip.compress(path.read_bytes()))
    recipe = recipe_for(tmp_path, source={"include": [f"*.{kind}"]})
    planned = plan(recipe)
    assert planned.estimated_chunks == pytest.approx(1_000, rel=0.1)
    assert planned.estimated_tokens == pytest.approx(run(recipe).tokens, rel=0.1)


def test_plan_file_that_breaks_the_code_is_planned_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbered(tmp_path, 2)

    def broken(text: str, *_: Any) -> Any:
        raise ZeroDivisionError(text)

    monkeypatch.setattr(estimate, "chunk_document", broken)
    planned = plan(recipe_for(tmp_path))
    assert (len(planned.files), planned.estimated_chunks) == (2, 0)
    assert "cutting it broke off with ZeroDivisionError" in planned.sample_problems[0]


def test_plan_estimates_from_files_that_hold_something(tmp_path: Path) -> None:
    for number in range(9):
        documents = {"x": "word " * 20} if number % 3 else {}
        write_jsonl(tmp_path, f"{number}.jsonl", documents)
    assert plan(recipe_for(tmp_path)).estimated_chunks == 6


def test_plan_file_that_is_again_what_it_was_before_changed_and_is_no_old_unit(
    tmp_path: Path,
) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"x": "first"})
    recipe = recipe_for(tmp_path)
    (first,) = work_units(plan(recipe), 1)
    run(recipe)
    write_jsonl(tmp_path, "a.jsonl", {"x": "second"})
    run(recipe)
    write_jsonl(tmp_path, "a.jsonl", {"x": "first"})
    assert why(recipe) == "content changed"
    (again,) = work_units(plan(recipe), 1)
    assert again.files[0].file_key == first.files[0].file_key
    assert again.unit_id != first.unit_id  # its old data files may be cleaned up any time
    run(recipe)
    assert texts(recipe) == ["first"]


def test_plan_file_that_moves_there_and_back_is_moved_both_times(tmp_path: Path) -> None:
    path = numbered(tmp_path, 4)[0]
    recipe = recipe_for(tmp_path)
    run(recipe)
    other = path.rename(tmp_path / "src" / "other.jsonl")
    run(recipe)
    other.rename(path)
    assert why(recipe) == f"moved from {other}"
    assert run(recipe).embedded == 0


# Removed files


def test_run_too_many_files_gone_stops_before_any_change_and_asks(tmp_path: Path) -> None:
    paths = numbered(tmp_path, 10)
    recipe = recipe_for(tmp_path)
    version = run(recipe).version
    for path in paths[:4]:
        path.unlink()
    planned = plan(recipe)
    assert planned.removes_too_much and len(planned.removed_uris) == 4
    with pytest.raises(SetupError, match=r"4 files are no.*40%") as caught:
        run(recipe)
    assert caught.value.action == "allow_removals"
    assert table_of(recipe).dataset().version == version
    assert run(recipe, allow_removals=True).rows == 6


def test_run_tolerated_share_of_files_gone_needs_no_leave(tmp_path: Path) -> None:
    paths = numbered(tmp_path, 10)
    recipe = recipe_for(tmp_path)
    run(recipe)
    for path in paths[:3]:
        path.unlink()
    assert run(recipe).rows == 7


def test_run_max_removed_share_of_the_recipe_counts(tmp_path: Path) -> None:
    paths = numbered(tmp_path, 10)
    run(recipe_for(tmp_path))
    paths[0].unlink()
    with pytest.raises(SetupError, match="max_removed_share"):
        run(recipe_for(tmp_path, max_removed_share=0.05))


def test_run_keep_removed_keeps_the_rows_until_it_is_taken_back(tmp_path: Path) -> None:
    paths = numbered(tmp_path, 4)
    kept = recipe_for(tmp_path, keep_removed=True)
    run(kept)
    for path in paths[1:]:
        path.unlink()
    planned = plan(kept)
    assert planned.is_empty and planned.kept_uris == tuple(map(str, paths[1:]))
    assert run(kept).rows == 4
    assert run(recipe_for(tmp_path), allow_removals=True).rows == 1


def test_run_last_file_gone_asks_for_leave_and_goes_with_it(tmp_path: Path) -> None:
    (path,) = numbered(tmp_path, 1)
    recipe = recipe_for(tmp_path)
    run(recipe)
    path.unlink()
    with pytest.raises(SetupError, match=r"1 file is no.*holds no file.*100%.*keep_removed: true"):
        run(recipe)
    assert (texts(recipe), run(recipe, allow_removals=True).rows) == (["text number 0"], 0)


def emptied(recipe: Recipe) -> list[str]:
    """What a plan says and what a run does with a source whose last file was removed."""
    with pytest.raises(SetupError, match=r"1 file is no longer in the source, which holds no file"):
        run(recipe)
    kept = recipe.model_copy(update={"keep_removed": True})
    assert run(kept).rows == 1
    said = PlanView(plan(kept)).lines()
    planned = PlanView(plan(recipe)).lines()
    report = run(recipe, allow_removals=True)
    assert (report.removed, report.rows, report.outcome) == (1, 0, "done")
    assert run(recipe).outcome == "done"  # with nothing to do, again and again
    return [*said, *planned, *PlanView(plan(recipe)).lines()]


def test_run_local_source_that_became_empty_removes_its_rows_with_leave(tmp_path: Path) -> None:
    (path,) = numbered(tmp_path, 1)
    recipe = recipe_for(tmp_path)
    run(recipe)
    path.unlink()
    said = "\n".join(emptied(recipe))
    assert "keep_removed keeps the rows of 1 file that left it" in said
    assert "WARNING: the source holds no file that the recipe reads" in said
    assert f"- {path}  (left the source)" in said
    assert "and the table has no rows of any" in said


def test_run_s3_source_that_became_empty_removes_its_rows_with_leave(tmp_path: Path) -> None:
    with stub_s3() as stub:
        source = {"uri": f"s3://{BUCKET}/texts", "storage": stub.storage.model_dump()}
        recipe = recipe_for(tmp_path, source=source)
        with pytest.raises(SetupError, match="nothing to read"):
            run(recipe)  # there never was a file: a mistake
        stub.objects["texts/a.jsonl"] = b'{"id": "1", "text": "words"}\n'
        run(recipe)
        stub.objects.clear()
        assert f"- s3://{BUCKET}/texts/a.jsonl  (left the source)" in "\n".join(emptied(recipe))


def test_run_emptied_source_forgets_files_that_gave_only_rejects(tmp_path: Path) -> None:
    bad = write_jsonl(tmp_path, "a.jsonl", {"x": " "})
    recipe = recipe_for(tmp_path)
    run(recipe)
    bad.unlink()
    assert rejects(recipe) and run(recipe).removed == 1
    assert rejects(recipe) == []


@pytest.mark.parametrize("keep_removed", [False, True])
def test_run_removed_file_without_rows_leaves_no_trace(tmp_path: Path, keep_removed: bool) -> None:
    paths = numbered(tmp_path, 3)
    bad = [
        write_jsonl(tmp_path, "blank.jsonl", {"x": " "}),
        write_jsonl(tmp_path, "empty.jsonl", []),
    ]
    recipe = recipe_for(tmp_path, keep_removed=keep_removed)
    run(recipe)
    for path in bad:
        path.unlink()
    planned = plan(recipe)
    assert (planned.removed_uris, planned.removed_share) == (tuple(map(str, bad)), 0.0)
    report = run(recipe)
    assert (report.removed, report.rows, report.outcome) == (2, 3, "done")
    assert rejects(recipe) == []
    assert [one.source_uri for one in file_lines(recipe)] == list(map(str, paths))
    assert plan(recipe).is_empty


# Moved files


def test_run_copy_of_a_file_that_is_there_but_unreadable_is_no_move(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path, "a.jsonl", {"x": "words"})
    recipe = recipe_for(tmp_path)
    run(recipe)
    shutil.copy(path, tmp_path / "src" / "b.jsonl")
    path.unlink()
    path.symlink_to(tmp_path / "nowhere")
    assert why(recipe) == "new file"
    run(recipe)
    assert [Path(row["source_uri"]).name for row in rows(recipe)] == ["a.jsonl", "b.jsonl"]


def test_run_renamed_file_keeps_its_vectors_under_the_new_name(tmp_path: Path) -> None:
    path = numbered(tmp_path, 3)[1]
    recipe = recipe_for(tmp_path)
    run(recipe)
    before = {row["doc_id"]: row for row in rows(recipe, "doc_id", "chunk_id", "vector")}
    target = tmp_path / "src" / "deep" / "renamed.jsonl"
    target.parent.mkdir()
    path.rename(target)
    planned = plan(recipe)
    (moved,) = planned.files
    assert (moved.change, moved.why) == ("moved", f"moved from {path}")
    assert not planned.removed_uris and planned.estimated_tokens == 0
    report = run(recipe)
    assert (report.moved, report.embedded, report.reused, report.removed) == (1, 0, 1, 0)
    assert report.outcome == "done"
    after = {row["doc_id"]: row for row in rows(recipe, "doc_id", "chunk_id", "vector")}
    assert after.keys() == before.keys()
    assert after["d1"]["vector"] == before["d1"]["vector"]
    assert after["d1"]["chunk_id"] != before["d1"]["chunk_id"]
    assert str(target) in {row["source_uri"] for row in rows(recipe)}
    assert str(path) not in {row["source_uri"] for row in rows(recipe)}
    assert plan(recipe).is_empty


def test_run_whole_folder_renamed_is_no_removal_and_embeds_nothing(tmp_path: Path) -> None:
    numbered(tmp_path, 5)
    run(recipe_for(tmp_path))
    shutil.move(tmp_path / "src", tmp_path / "elsewhere")
    recipe = recipe_for(tmp_path, source={"uri": str(tmp_path / "elsewhere")})
    report = run(recipe)
    assert (report.moved, report.embedded, report.rows) == (5, 0, 5)


def test_run_moved_file_goes_and_comes_in_one_version(tmp_path: Path) -> None:
    path = numbered(tmp_path, 4)[3]
    recipe = recipe_for(tmp_path)
    version = run(recipe).version or 0
    path.rename(tmp_path / "src" / "new.jsonl")
    write_jsonl(tmp_path, "00.jsonl", {"d0": "changed"})
    run(recipe)
    dataset = table_of(recipe).dataset()
    seen = [
        dataset.checkout_version(one["version"]).count_rows(filter="doc_id = 'd3'")
        for one in dataset.versions()
        if one["version"] > version
    ]
    assert set(seen) == {1}, "a reader saw the file twice or not at all"


def test_run_names_that_were_passed_on_embed_nothing(tmp_path: Path) -> None:
    """As rotated logs do: each file has the content that another had before."""
    paths = numbered(tmp_path, 4)
    recipe = recipe_for(tmp_path)
    run(recipe)
    for older, newer in zip(paths[:0:-1], paths[-2::-1], strict=True):
        newer.replace(older)
    write_jsonl(tmp_path, "00.jsonl", {"new": "new words"})
    shutil.copy(paths[1], tmp_path / "src" / "copy.jsonl")
    planned = plan(recipe)
    assert [one.change for one in planned.files] == ["changed"] * 4 + ["added"]
    assert planned.estimated_chunks == 1
    report = run(recipe)
    assert (report.embedded, report.reused, report.outcome) == (1, 4, "done")
    order = ["new words", *(f"text number {n}" for n in (0, 1, 2, 0))]
    assert texts(recipe) == order and plan(recipe).is_empty
    check_vectors(recipe)


def test_run_moved_and_cut_otherwise_keeps_what_stays(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path, "a.jsonl", {"short": "few words", "long": "word " * 20})
    run(recipe_for(tmp_path))
    path.rename(tmp_path / "src" / "b.jsonl")
    smaller = recipe_for(tmp_path, chunk={"max_tokens": 10})
    assert why(smaller) == f"moved from {path}, chunking changed"
    report = run(smaller)
    assert (report.embedded, report.reused) == (1, 2)


def test_run_moved_file_takes_its_rejects_along(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path, "a.jsonl", {"x": "words", "y": " "})
    recipe = recipe_for(tmp_path)
    run(recipe)
    target = path.rename(tmp_path / "src" / "b.jsonl")
    run(recipe)
    assert [one["source_uri"] for one in rejects(recipe)] == [str(target)]


def test_run_lost_ledger_is_written_again_and_a_move_is_a_new_file(tmp_path: Path) -> None:
    paths = numbered(tmp_path, 10)
    recipe = recipe_for(tmp_path)
    run(recipe)
    shutil.rmtree(tmp_path / "lake" / "docs__files.lance")
    paths[0].rename(tmp_path / "src" / "new.jsonl")
    planned = plan(recipe)
    assert [one.change for one in planned.files] == ["changed"] * 9 + ["added"]
    assert {one.why for one in planned.files[:9]} == {"its line in the ledger is missing"}
    assert planned.removed_uris == (str(paths[0]),)
    report = run(recipe)
    assert (report.rows, report.reused, report.embedded, report.outcome) == (10, 9, 1, "done")
    assert plan(recipe).is_empty


# Tables changed by hand


def test_run_rows_deleted_by_hand_are_made_again(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"x": "one", "y": "two"})
    write_jsonl(tmp_path, "b.jsonl", {"z": "three"})
    recipe = recipe_for(tmp_path)
    run(recipe)
    table_of(recipe).dataset().delete("doc_id = 'x'")
    assert why(recipe) == "the table has 1 of its 2 rows: changed by hand"
    report = run(recipe)
    assert (report.embedded, report.reused, report.outcome) == (1, 1, "done")
    table_of(recipe).dataset().delete("doc_id = 'z'")
    assert why(recipe) == "it was in the table before, its rows are gone"
    assert run(recipe).outcome == "done"
    assert texts(recipe) == ["one", "two", "three"]


def test_plan_foreign_rows_are_refused_and_stay(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"x": "one"})
    recipe = recipe_for(tmp_path)
    run(recipe)
    dataset = table_of(recipe).dataset()
    (row,) = dataset.to_table().to_pylist()
    foreign = row | {"source_uri": "/by/hand", "file_key": "mine", "doc_id": "1"}
    dataset.insert(pa.Table.from_pylist([foreign], schema=dataset.schema))
    with pytest.raises(LakeError, match=r"did not write.*'/by/hand'"):
        run(recipe)
    assert len(rows(recipe)) == 2


def test_plan_extra_column_is_refused_by_its_name(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"x": "one"})
    recipe = recipe_for(tmp_path)
    run(recipe)
    table_of(recipe).dataset().add_columns({"mine": "1"})
    with pytest.raises(LakeError, match=r"did not make \(mine: "):
        run(recipe)
    assert np.shape(rows(recipe, "mine")) == (1,)
