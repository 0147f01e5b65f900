"""The table follows its files: added, changed, removed, unchanged; nothing left out silently."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embedding_core.encoder import Encoder, hashing
from embedding_core.encoder.engines import describe_model
from embedding_core.errors import LakeError, ModelError
from embedding_core.identity import space_id, text_hash
from embedding_core.lake import ledger
from embedding_core.lake.rows.commit import replace_rows, withdraw_second_copies
from embedding_core.lake.table import table_of
from embedding_core.recipe import Resources
from embedding_core.records import EmbeddedUnit
from embedding_core.runs.embed.chunk_stage import chunk_unit
from embedding_core.runs.embed.commit_stage import commit_units, lost_units
from embedding_core.runs.embed.embed_stage import embed_unit
from embedding_core.runs.embed.finish_stage import RunTally, finish
from embedding_core.runs.embed.planning import plan
from embedding_core.runs.embed.units import work_units
from embedding_core.runs.job import Job
from tests.driver import begin, recipe_for, rows, run, texts, write_jsonl

TEN = [f"file-{number}.jsonl" for number in range(10)]


def ten_files(folder: Path) -> None:
    for number, name in enumerate(TEN):
        write_jsonl(folder, name, {f"d{number}": f"document number {number} about apples"})


def test_run_first_time_every_row_says_where_it_came_from(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path, "a.jsonl", {"x": "one two three", "y": "four five"})
    recipe = recipe_for(tmp_path)
    report = run(recipe)
    assert report.outcome == "done"
    assert (report.documents, report.chunks, report.embedded) == (2, 2, 2)
    found = rows(recipe, "source_uri", "doc_id", "text", "text_hash", "char_start", "char_end")
    assert found[0] == {
        "source_uri": str(path),
        "doc_id": "x",
        "text": "one two three",
        "text_hash": text_hash("one two three"),
        "char_start": 0,
        "char_end": 13,
    }


def test_run_vectors_are_the_encoders_own(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"x": "one two three", "y": "four five"})
    recipe = recipe_for(tmp_path)
    run(recipe)
    expected = Encoder.load("hashing", dim=32).encode_documents(["one two three", "four five"])
    stored = np.array([row["vector"] for row in rows(recipe, "vector")], np.float32)
    np.testing.assert_allclose(stored, expected, atol=1e-3)


def test_run_again_nothing_changes(tmp_path: Path) -> None:
    ten_files(tmp_path)
    recipe = recipe_for(tmp_path)
    first = run(recipe)
    planned = plan(recipe)
    again = run(recipe)
    assert planned.is_empty and planned.unchanged == 10
    assert again.version == first.version
    assert again.rows == first.rows == 10


def test_run_one_file_changed_only_its_unit_is_planned_and_its_rows_replaced(
    tmp_path: Path,
) -> None:
    ten_files(tmp_path)
    recipe = recipe_for(tmp_path)
    run(recipe)
    before = rows(recipe)
    write_jsonl(tmp_path, TEN[3], {"d3": "now about pears"})
    planned = plan(recipe)
    units = list(work_units(planned, unit_bytes=1 << 20))
    assert [one.change for one in planned.files] == ["changed"]
    assert planned.files[0].why == "content changed"
    assert len(units) == 1 and len(units[0].files) == 1
    assert run(recipe).embedded == 1
    after = rows(recipe)
    assert after[3]["text"] == "now about pears"
    assert after[:3] + after[4:] == before[:3] + before[4:]


def test_run_one_file_deleted_its_rows_go_and_nothing_is_embedded(tmp_path: Path) -> None:
    ten_files(tmp_path)
    recipe = recipe_for(tmp_path)
    run(recipe)
    (tmp_path / "src" / TEN[7]).unlink()
    report = run(recipe)
    assert (report.removed, report.embedded, report.rows) == (1, 0, 9)
    assert "d7" not in {row["doc_id"] for row in rows(recipe, "doc_id")}


def test_run_changed_and_removed_files_go_in_one_version(tmp_path: Path) -> None:
    ten_files(tmp_path)
    recipe = recipe_for(tmp_path)
    version = run(recipe).version
    write_jsonl(tmp_path, TEN[0], {"d0": "changed"})
    (tmp_path / "src" / TEN[1]).unlink()
    run(recipe)
    dataset = table_of(recipe).dataset()
    contents = [
        dataset.checkout_version(one["version"]).count_rows()
        for one in dataset.versions()
        if one["version"] > (version or 0)
    ]
    assert set(contents) == {9}, "a reader saw the change half made"


def test_run_other_chunking_says_why_and_rebuilds_the_rows(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"x": " ".join(f"word{n}" for n in range(60))})
    run(recipe_for(tmp_path))
    smaller = recipe_for(tmp_path, chunk={"max_tokens": 16})
    planned = plan(smaller)
    assert planned.files[0].why == "chunking changed"
    run(smaller)
    assert len(rows(smaller)) == 4


def test_run_speed_settings_do_not_change_what_is_planned(tmp_path: Path) -> None:
    ten_files(tmp_path)
    recipe = recipe_for(tmp_path)
    run(recipe, Resources(unit_bytes=1))
    assert plan(recipe).is_empty
    shutil.rmtree(tmp_path / "lake")
    run(recipe, Resources(unit_bytes=1 << 30))
    assert len(rows(recipe)) == 10


def test_run_equal_texts_in_a_unit_are_embedded_once(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"x": "same words", "y": "same words", "z": "others"})
    recipe = recipe_for(tmp_path)
    report = run(recipe)
    assert (report.embedded, report.reused) == (2, 1)
    first, second, _ = [row["vector"] for row in rows(recipe, "vector")]
    assert first == second


def test_run_file_without_records_is_done_and_not_planned_again(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"x": "words"})
    write_jsonl(tmp_path, "empty.jsonl", [])
    recipe = recipe_for(tmp_path)
    run(recipe)
    assert plan(recipe).is_empty


@pytest.mark.parametrize("lost", ["docs__files.lance", "docs__rejects.lance", "_embedlake"])
def test_run_side_data_deleted_costs_nothing_but_time(tmp_path: Path, lost: str) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"x": "words", "y": " "})
    write_jsonl(tmp_path, "b.jsonl", {"z": "more words"})
    recipe = recipe_for(tmp_path, max_rejected_share=0.5)
    run(recipe)
    before = rows(recipe)
    shutil.rmtree(tmp_path / "lake" / lost, ignore_errors=True)
    write_jsonl(tmp_path, "b.jsonl", {"z": "other words"})
    report = run(recipe)
    assert report.outcome == "done" and report.embedded == 1
    assert rows(recipe)[0] == before[0]
    assert texts(recipe) == ["words", "other words"]


def test_embed_unit_staged_file_gone_makes_it_again(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"x": "words"})
    recipe = recipe_for(tmp_path)
    job, planned = begin(recipe)
    (unit,) = work_units(planned, 1)
    staged = chunk_unit(job, unit)
    Path(staged.path).unlink()
    assert not list((tmp_path / "lake" / "docs.lance" / "data").glob("*"))
    assert embed_unit(job, staged).counts[0].embedded == 1


def test_commit_units_twice_changes_nothing(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"x": "words"})
    recipe = recipe_for(tmp_path)
    job, planned = begin(recipe)
    done = [embed_unit(job, chunk_unit(job, unit)) for unit in work_units(planned, 1)]
    commit_units(job, done)
    version = table_of(recipe).dataset().version
    commit_units(job, done)
    assert table_of(recipe).dataset().version == version
    assert len(rows(recipe)) == 1
    assert ledger.ledger_rows(ledger.open_ledger(table_of(recipe)), ["file_key"]).num_rows == 1


def test_lost_units_fragments_deleted_are_found(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"x": "words"})
    recipe = recipe_for(tmp_path)
    job, planned = begin(recipe)
    (unit,) = work_units(planned, 1)
    done = embed_unit(job, chunk_unit(job, unit))
    assert lost_units(job, [done]) == []
    shutil.rmtree(tmp_path / "lake" / "docs.lance" / "data")
    assert lost_units(job, [done]) == [done]


def test_embed_unit_model_moved_since_the_plan_stops(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"x": "words"})
    recipe = recipe_for(tmp_path)
    planned = plan(recipe)
    job = Job(recipe, Resources(), "0" * 64, planned.rows_id, "run")
    (unit,) = work_units(planned, 1)
    with pytest.raises(ModelError, match="changed during the run"):
        chunk_unit(job, unit)


def test_plan_lake_of_another_recipe_names_both(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"x": "words"})
    run(recipe_for(tmp_path))
    with pytest.raises(LakeError, match=r"belongs to the recipe 'test', not to 'other'"):
        plan(recipe_for(tmp_path, name="other"))


def test_plan_lake_of_another_space_names_both_and_the_way_out(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"x": "words"})
    recipe, other = recipe_for(tmp_path), recipe_for(tmp_path, model={"dim": 64})
    run(recipe)
    held, wanted = (space_id(describe_model(one.model).space)[:12] for one in (recipe, other))
    said = rf"space {held} .* space {wanted} .*dim .*never mix: build the recipe's beside it"
    with pytest.raises(LakeError, match=said) as caught:
        plan(other)
    assert caught.value.action == "reembed"


def test_plan_estimates_tokens_within_a_fifth_on_an_even_corpus(tmp_path: Path) -> None:
    for number in range(12):
        words = " ".join(f"word{number * 7 + n}" for n in range(200))
        write_jsonl(tmp_path, f"{number}.jsonl", {"x": words})
    recipe = recipe_for(tmp_path)
    planned = plan(recipe)
    assert planned.estimated_seconds is None
    tokens = run(recipe).tokens
    assert planned.estimated_tokens == pytest.approx(tokens, rel=0.2)


def test_work_units_every_file_once_and_small_ones_packed(tmp_path: Path) -> None:
    ten_files(tmp_path)
    planned = plan(recipe_for(tmp_path))
    size = planned.files[0].file.size_bytes
    units = list(work_units(planned, unit_bytes=3 * size))
    assert [one.file_key for unit in units for one in unit.files] == [
        one.file_key for one in planned.files
    ]
    assert max(len(unit.files) for unit in units) == 3


@pytest.mark.slow
def test_work_units_of_unit_file_are_one_file_each_whatever_its_size(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"x": "words"})
    write_jsonl(tmp_path, "b.jsonl", {"y": "words"})
    write_jsonl(tmp_path, "huge.jsonl", {f"h{n}": "words " * 4_000 for n in range(200)})
    recipe = recipe_for(tmp_path)
    planned = plan(recipe)
    by_bytes = Resources(unit_bytes=1024 * 1024)
    cut = list(work_units(planned, by_bytes.bytes_per_unit, recipe.source))
    assert len(cut[0].files) == 2 and all(unit.slice for unit in cut[1:]) and len(cut) > 3
    by_file = Resources(unit="file", unit_bytes=1024 * 1024)
    units = list(work_units(planned, by_file.bytes_per_unit, recipe.source))
    assert [unit.files for unit in units] == [(file,) for file in planned.files]
    assert [unit.slice for unit in units] == [None] * 3
    report = run(recipe, by_file)
    assert report.documents == 202


def test_work_units_files_without_content_are_not_all_in_one(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", [])
    planned = plan(recipe_for(tmp_path))
    many = replace(planned, files=planned.files * 10_000)
    assert [len(unit.files) for unit in work_units(many, 1 << 22)] == [4_096, 4_096, 1_808]


def test_finish_ledger_that_does_not_balance_fails_the_run(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"x": "words"})
    recipe = recipe_for(tmp_path)
    job, planned = begin(recipe)
    (unit,) = work_units(planned, 1)
    done = embed_unit(job, chunk_unit(job, unit))
    wrong = replace(done, counts=(replace(done.counts[0], chunks=5),))
    commit_units(job, [wrong])
    tally = RunTally()
    tally.add([wrong])
    report = finish(job, planned, tally, time.perf_counter())
    assert report.outcome == "failed"
    assert "5 chunks are not 1 embedded" in report.verification.problems[0]


def test_commit_units_of_two_runs_at_once_keep_one_copy(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"x": "words"})
    write_jsonl(tmp_path, "b.jsonl", {"y": "more words"})
    recipe = recipe_for(tmp_path)
    one, planned = begin(recipe, Resources(unit_bytes=1))
    other = replace(one, resources=Resources(unit_bytes=1 << 20), run_id="other")

    def embedded(job: Job) -> list[EmbeddedUnit]:
        units = work_units(planned, job.resources.unit_bytes)
        return [embed_unit(job, chunk_unit(job, unit)) for unit in units]

    first, second = embedded(one), embedded(other)
    # Both look before either has committed; then both commit.
    table = table_of(recipe)
    replace_rows(table, "file_key", [], [f for unit in first for f in unit.fragments])
    fragments = [f for unit in second for f in unit.fragments]
    replace_rows(table, "file_key", [], fragments)
    assert len(rows(recipe)) == 4
    withdraw_second_copies(table.open(), "source_uri", fragments)
    assert texts(recipe) == ["words", "more words"]
    withdraw_second_copies(
        table.open(), "source_uri", [f for unit in first for f in unit.fragments]
    )
    assert texts(recipe) == ["words", "more words"]


def test_run_model_that_gives_other_vectors_stops_before_it_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"x": "words"})
    recipe = recipe_for(tmp_path)
    run(recipe)
    write_jsonl(tmp_path, "b.jsonl", {"y": "more words"})
    real = hashing.HashingEncoder.encode_documents
    monkeypatch.setattr(
        hashing.HashingEncoder,
        "encode_documents",
        lambda encoder, batch: real(encoder, [text[::-1] for text in batch]),
    )
    not_checked_yet = Resources(unit_bytes=2)
    with pytest.raises(ModelError, match="other vectors here"):
        run(recipe, not_checked_yet)
    assert texts(recipe) == ["words"]
