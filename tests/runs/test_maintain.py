"""Maintenance beside readers and writers: fewer fragments and versions, and the same rows."""

from __future__ import annotations

import os
import threading
import time
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import lance
import pyarrow as pa
import pytest

from embedding_core import Encoder
from embedding_core.encoder.engines import describe_model
from embedding_core.errors import LakeError
from embedding_core.lake import ledger, schema
from embedding_core.lake.index.vector import refresh_vector_index
from embedding_core.lake.spaces.vector_columns import add_column
from embedding_core.lake.staging import staged_path
from embedding_core.lake.table import Lake, Table, table_of
from embedding_core.lake.upkeep import compaction, store_clock
from embedding_core.lake.upkeep.belongings import remove_orphans
from embedding_core.lake.upkeep.compaction import maintain_table  # fmt: skip
from embedding_core.lake.upkeep.store_clock import check_clock
from embedding_core.recipe import IndexSpec, ModelSpec, Recipe
from embedding_core.runs.embed import planning
from embedding_core.runs.job import locked_for
from embedding_core.runs.maintenance import maintain, needs_maintenance
from embedding_core.store import retry
from tests.driver import recipe_for, run, texts, write_jsonl
from tests.s3 import S3Server
from tests.synthetic import Clusters, add_files

AT_ONCE = timedelta(microseconds=1)
CLUSTERS = Clusters.make(20, 32)


def run_often(folder: Path, times: int, first: int = 0, **changes: Any) -> Recipe:
    """A run for each new file, so a fragment for each."""
    recipe = recipe_for(folder, **changes)
    for number in range(first, first + times):
        write_jsonl(folder, f"f{number:03}.jsonl", {f"d{number}": f"text number {number}"})
        assert run(recipe).outcome == "done"
    return recipe


def fragment_files(table: Table) -> list[str]:
    return [one.metadata.files[0].path for one in table.dataset().get_fragments()]


# What it does


def test_maintain_many_small_runs_become_one_fragment_with_the_same_rows(tmp_path: Path) -> None:
    recipe = run_often(tmp_path, 6, index={"full_text": True})
    before = texts(recipe)
    report = maintain(recipe)
    docs, files = report.tables[:2]
    assert (docs.before.fragments, docs.after.fragments) == (6, 1)
    assert (docs.table, files.table) == ("docs", "docs__files")
    assert (files.before.fragments, files.after.fragments) == (6, 1)
    assert docs.fragments_merged == 6 and docs.before.small_fragments == 6
    assert docs.after.small_fragments == 0 and docs.after.rows == docs.before.rows == 6
    assert set(docs.after.indexed_share.values()) == {1.0} and len(docs.after.indexed_share) == 4
    assert texts(recipe) == before and planning.plan(recipe).is_empty
    assert (report.problems, report.outcome) == ((), "done")


def test_maintain_again_changes_no_data(tmp_path: Path) -> None:
    recipe = run_often(tmp_path, 3)
    maintain(recipe)
    files = fragment_files(table_of(recipe))
    again = maintain(recipe)
    assert fragment_files(table_of(recipe)) == files
    assert {one.fragments_merged for one in again.tables} == {0}


def test_compact_large_fragments_are_not_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "FRAGMENT_BYTES", 1)  # 1,024 rows are a full fragment
    recipe = recipe_for(tmp_path)
    table = add_files(recipe, ["large"], 600, CLUSTERS)
    (large,) = fragment_files(table)
    for number in range(3):
        add_files(recipe, [f"small{number}"], 10, CLUSTERS)
    assert compaction.compact(table) == 3
    kept, merged = fragment_files(table)
    assert kept == large and merged != large
    assert table.dataset().count_rows() == 630


def test_compact_fragment_with_many_deleted_rows_is_written_without_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "FRAGMENT_BYTES", 1)
    table = add_files(recipe_for(tmp_path), ["a"], 1_000, CLUSTERS)
    table.dataset().delete("chunk_index < 50")
    assert compaction.compact(table) == 0  # a twentieth is not worth it
    table.dataset().delete("chunk_index < 300")
    assert compaction.state_of(table).deleted_rows == 300
    assert compaction.compact(table) == 1
    assert compaction.state_of(table).deleted_rows == 0
    assert table.dataset().count_rows() == 700


@pytest.mark.slow
def test_maintain_search_finds_the_same_after_it(tmp_path: Path) -> None:
    recipe, spec = recipe_for(tmp_path), IndexSpec(min_rows=256)
    for number in range(4):
        table = add_files(recipe, [f"f{number}"], 200, CLUSTERS, seed=number)
        refresh_vector_index(table, spec)
    encoder = Encoder.load("hashing", dim=32)
    before = [hit.chunk_id for hit in table.search("some words", encoder, exact=True)]
    maintain_table(table, AT_ONCE, lambda: refresh_vector_index(table, spec, merge=True))
    assert [hit.chunk_id for hit in table.search("some words", encoder, exact=True)] == before
    found = {hit.chunk_id for hit in table.search("some words", encoder)}
    assert len(found & set(before)) >= 9


# Versions, tags, readers


def test_maintain_removes_old_versions_but_not_tagged_ones(tmp_path: Path) -> None:
    recipe = run_often(tmp_path, 3)
    table = table_of(recipe)
    table.dataset().tags.create("before", table.dataset().version)
    tagged = table.dataset().to_table()
    run_often(tmp_path, 3, first=3)
    report = maintain_table(table, AT_ONCE)
    assert report.versions_removed > 5 and report.bytes_removed > 0
    assert report.after.versions == 2 and report.after.size_bytes < report.before.size_bytes
    kept = lance.dataset(table.uri, version="before")
    assert kept.to_table() == tagged
    assert maintain_table(table, AT_ONCE).problems == ()  # an old tag is no failure the next time


def test_maintain_reader_on_an_older_version_goes_on(tmp_path: Path) -> None:
    recipe = run_often(tmp_path, 4)
    pinned = table_of(recipe).dataset()
    before = pinned.to_table()
    report = maintain(recipe)
    assert report.tables[0].fragments_merged == 4 and report.tables[0].versions_removed == 0
    assert pinned.to_table() == before


def test_maintain_table_that_keeps_nothing_is_refused(tmp_path: Path) -> None:
    recipe = run_often(tmp_path, 1)
    with pytest.raises(ValueError, match="keep is"):
        maintain_table(table_of(recipe), timedelta(0))


@pytest.mark.slow
def test_maintain_kept_vector_column_and_its_index_survive(tmp_path: Path) -> None:
    recipe, kept = recipe_for(tmp_path), "vector__0a1b2c3d"
    table = add_files(recipe, ["a"], 400, CLUSTERS)
    table.dataset().add_columns({kept: "vector"})
    table.dataset().create_index(
        kept, "IVF_SQ", name="space_old", metric="cosine", num_partitions=1
    )
    before = table.dataset().to_table(columns=["chunk_id", kept]).to_pylist()
    for number in range(3):  # rows that have nothing in that column
        add_files(recipe, [f"new{number}"], 20, CLUSTERS, seed=number + 1)
    spec = IndexSpec(min_rows=256)
    report = maintain_table(table, AT_ONCE, lambda: refresh_vector_index(table, spec, merge=True))
    assert report.problems == () and report.fragments_merged > 0
    after = table.dataset()
    assert after.to_table(columns=["chunk_id", kept], filter=f"{kept} IS NOT NULL").to_pylist() == (
        before
    )
    assert "space_old" in {index.name for index in after.describe_indices()}
    query = before[7][kept]
    nearest = {"column": kept, "q": query, "k": 1, "nprobes": 1, "refine_factor": 1}
    found = after.to_table(columns=["chunk_id"], nearest=nearest).column("chunk_id").to_pylist()
    assert found == [before[7]["chunk_id"]]


# Beside a run


@pytest.mark.slow
@pytest.mark.parametrize("arrives", [True, False])
def test_commit_whose_reply_was_lost_looks_past_compaction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arrives: bool
) -> None:
    recipe = run_often(tmp_path, 4)
    table, real = table_of(recipe), lance.LanceDataset.commit
    maintained: list[int] = []

    def commit_maintain_and_fail(target: Any, *changes: Any, **settings: Any) -> lance.LanceDataset:
        is_of_rows = isinstance(target, lance.LanceDataset) and target.uri == table.uri
        if maintained or not is_of_rows:
            return real(target, *changes, **settings)
        if arrives:
            real(target, *changes)
        before = int(table.dataset().version)
        maintained.append(maintain(recipe).tables[0].fragments_merged)
        with pytest.raises(TypeError):  # pylance cannot show what it did to the indexes
            table.dataset().get_transactions(int(table.dataset().version) - before)
        raise OSError("connection reset")

    monkeypatch.setattr(lance.LanceDataset, "commit", commit_maintain_and_fail)
    run_often(tmp_path, 1, first=4)
    assert maintained == [4 + arrives]
    assert texts(recipe) == [f"text number {number}" for number in range(5)]


@pytest.mark.slow
def test_maintain_beside_runs_loses_no_row_and_stops_none(tmp_path: Path) -> None:
    recipe = run_often(tmp_path, 2, max_removed_share=1)
    truth = {"f000.jsonl": "text number 0", "f001.jsonl": "text number 1"}
    faults_of_runs: list[BaseException] = []
    enough = threading.Event()

    def change_files() -> None:
        try:
            for step in count():
                if step >= 12 and enough.is_set():
                    return
                name, text = f"f{step % 5:03}.jsonl", f"step {step}"
                write_jsonl(tmp_path, name, {"d": text})
                truth[name] = text
                if step % 4 == 3:
                    gone = f"f{(step - 1) % 5:03}.jsonl"
                    (tmp_path / "src" / gone).unlink()
                    del truth[gone]
                assert run(recipe).outcome == "done"
        except BaseException as error:
            faults_of_runs.append(error)

    ingest = threading.Thread(target=change_files)
    ingest.start()
    reports = []
    while ingest.is_alive():
        reports.append(maintain(recipe))
        if len(reports) == 4:
            enough.set()
    assert faults_of_runs == []
    assert [problem for report in reports for problem in report.problems] == []
    assert texts(recipe) == [truth[name] for name in sorted(truth)]
    assert planning.plan(recipe).is_empty


def test_run_that_leaves_many_fragments_maintains_the_table(tmp_path: Path) -> None:
    changes = {"maintain": {"small_fragments": 3}}
    recipe = run_often(tmp_path, 3, **changes)
    assert len(fragment_files(table_of(recipe))) == 3
    write_jsonl(tmp_path, "last.jsonl", {"d": "one more"})
    report = run(recipe)
    assert report.maintenance is not None and report.outcome == "done"
    assert len(fragment_files(table_of(recipe))) == 1
    assert len(texts(recipe)) == 4
    assert run(recipe).maintenance is None


@pytest.mark.slow
def test_needs_maintenance_not_while_a_space_is_being_built(tmp_path: Path) -> None:
    """Compaction waits for the build: every run would merge the indexes for nothing."""
    recipe = run_often(tmp_path, 3)
    impatient = recipe_for(tmp_path, maintain={"small_fragments": 2})
    table, model = table_of(recipe), ModelSpec(name="hashing", dim=16)
    maintain_table(ledger.ledger_table(table), AT_ONCE)
    add_column(table, describe_model(model).space, model, "a build")
    with locked_for(recipe, "a build", 0, "build"):
        assert not needs_maintenance(impatient, table.open())
    assert needs_maintenance(impatient, table.open())


def test_maintain_conflict_that_passes_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = run_often(tmp_path, 3)
    stage_conflicts(monkeypatch, times=2)
    report = maintain(recipe)
    assert report.problems == () and report.tables[0].after.fragments == 1


@pytest.mark.slow
def test_maintain_conflict_that_stays_is_reported_and_stops_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = run_often(tmp_path, 3, maintain={"small_fragments": 2})
    before = texts(recipe)
    lost = stage_conflicts(monkeypatch, times=1_000)
    run_often(tmp_path, 3, first=3)
    lost.clear()
    report = maintain(recipe)
    assert len(report.problems) == 2 and "preempted" in report.problems[0]
    assert len(lost) == 2 * retry.STORE_ATTEMPTS  # of the table and of its ledger
    assert report.outcome == "failed"
    write_jsonl(tmp_path, "last.jsonl", {"d": "text number 9"})
    ended = run(recipe)  # its own maintenance fails: the run has done its work all the same
    assert ended.outcome == "done" and ended.maintenance is not None
    assert texts(recipe)[:3] == before


def test_maintain_disk_that_is_full_is_said_and_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = run_often(tmp_path, 3)
    full = "LanceError(IO): No space left on device (os error 28), /lance/src/writer.rs:254:9"
    tried = stage_conflicts(monkeypatch, times=1_000, error=full)
    report = maintain(recipe)
    assert len(report.problems) == len(tried) == 2  # once for the table, once for its ledger
    assert "make room" in report.problems[0] and ".rs" not in report.problems[0]


def stage_conflicts(
    monkeypatch: pytest.MonkeyPatch,
    times: int,
    error: str = "Retryable commit conflict: this Rewrite was preempted",
) -> list[str]:
    """The first ``times`` commits of a compaction end so, by default since another writer was
    first; a line for each."""
    real, lost = compaction.Compaction.commit, list[str]()

    class Conflicting:
        plan = compaction.Compaction.plan

        @staticmethod
        def commit(*given: Any) -> Any:
            if len(lost) < times:
                lost.append(error)
                raise OSError(error)
            return real(*given)

    monkeypatch.setattr(compaction, "Compaction", Conflicting)
    monkeypatch.setattr(retry, "FIRST_PAUSE_SECONDS", 0)
    return lost


# Orphans, owners, S3


def test_remove_orphans_goes_by_age(tmp_path: Path) -> None:
    recipe = run_often(tmp_path, 1)
    table = table_of(recipe)
    old, new = (Path(staged_path(table, name)) for name in ("old", "new"))
    for path in (old, new):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"12345")
    week_ago = time.time() - 8 * 86_400
    os.utime(old, (week_ago, week_ago))
    report = maintain(recipe)
    assert (report.orphans_removed, report.orphan_bytes) == (1, 5)
    assert new.exists() and not old.parent.exists()


def test_maintain_clock_ahead_of_the_stores_removes_nothing_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = run_often(tmp_path, 3)
    table = table_of(recipe)
    left = Path(staged_path(table, "unit", "rows.arrow"))
    left.parent.mkdir(parents=True)
    left.write_bytes(b"rows")
    long_ago = time.time() - timedelta(days=8).total_seconds()
    os.utime(left, (long_ago, long_ago))
    with monkeypatch.context() as patch:
        patch.setattr(store_clock, "MOST_AHEAD", timedelta(days=-1))
        report = maintain(recipe)
    (problem,) = report.problems
    assert "clock" in problem and "set the clock by NTP" in problem
    assert report.outcome == "failed"
    assert report.tables[0].fragments_merged == 3, "what needs no clock was done"
    assert (left.exists(), report.tables[0].versions_removed) == (True, 0)
    assert maintain(recipe).problems == ()
    assert not left.exists()


def test_check_clock_allows_a_clock_that_is_behind_and_leaves_nothing(tmp_path: Path) -> None:
    table = table_of(run_often(tmp_path, 1))
    now = datetime.now(UTC)
    before = sorted(Path(table.lake.uri).rglob("*"))
    check_clock(table)
    check_clock(table, now - timedelta(days=30))
    with pytest.raises(LakeError, match=r"30 days, .* ahead"):
        check_clock(table, now + timedelta(days=30, minutes=1))
    assert sorted(Path(table.lake.uri).rglob("*")) == before


def test_check_clock_asks_the_store_on_s3(s3: S3Server) -> None:
    lake = Lake.open(f"s3://{s3.new_bucket()}/lake", s3.storage)
    table = Table(lake, "docs")
    check_clock(table)
    with pytest.raises(LakeError, match="ahead of that of s3://"):
        check_clock(table, datetime.now(UTC) + timedelta(days=30))


def test_maintain_table_of_another_recipe_is_refused(tmp_path: Path) -> None:
    run_often(tmp_path, 1)
    with pytest.raises(LakeError, match="belongs to the recipe 'test'"):
        maintain(recipe_for(tmp_path, name="other"))


def test_maintain_without_a_table_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(LakeError, match="no table 'docs'") as caught:
        maintain(recipe_for(tmp_path))
    assert caught.value.action == "embed"


def test_maintain_empty_table_has_nothing_to_do(tmp_path: Path) -> None:
    recipe = run_often(tmp_path, 1)
    write_jsonl(tmp_path, "f000.jsonl", {})
    run(recipe)
    report = maintain(recipe)
    assert (report.tables[0].after.rows, report.problems) == (0, ())


@pytest.mark.e2e
def test_maintain_on_s3(s3: S3Server) -> None:
    lake = Lake.open(f"s3://{s3.new_bucket()}/lake", s3.storage)
    table = Table(lake, "docs")
    columns = pa.schema([pa.field("chunk_id", pa.string())])
    table.create(columns)
    for number in range(4):
        lance.write_dataset(
            pa.table({"chunk_id": [str(number)]}), table.uri, mode="append",
            storage_options=lake.options,
        )  # fmt: skip
    s3.put(lake.uri.split("/")[2], "lake/_embedlake/docs/staged/a.arrow", b"12345")
    report = maintain_table(table, AT_ONCE)
    assert (report.before.fragments, report.after.fragments) == (4, 1)
    assert report.versions_removed > 0 and report.after.size_bytes < report.before.size_bytes
    assert table.dataset().count_rows() == 4
    assert remove_orphans(table).files == 0
    later = timedelta(seconds=-2)  # S3 tells times in whole seconds
    assert remove_orphans(table, later).files == 1
    assert schema.VECTOR not in table.dataset().schema.names
