"""Snapshots: one open for all the reads of a stage, and which version they read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pytest

from embedding_core.encoder.engines import describe_model
from embedding_core.errors import LakeError
from embedding_core.lake import ledger
from embedding_core.lake.index.refresh import IndexPlan, refresh_indexes
from embedding_core.lake.index.scalar import coverage
from embedding_core.lake.index.vector import stored_index
from embedding_core.lake.ownership.owner import ensure_table
from embedding_core.lake.query.search import Query
from embedding_core.lake.rows.verification import verify
from embedding_core.lake.scans import file_versions
from embedding_core.lake.schema import Cutter
from embedding_core.lake.spaces.vector_columns import columns
from embedding_core.lake.table import Table
from embedding_core.recipe import IndexSpec, ModelSpec, Recipe, Resources
from embedding_core.records import Reject
from embedding_core.runs.space.build import build_space
from embedding_core.runs.space.release_gate import gate
from embedding_core.runs.table_status import status
from tests.driver import recipe_for, run, write_jsonl
from tests.synthetic import Clusters, add_files

CLUSTERS = Clusters.make(5, 32)


@pytest.fixture
def opens(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """URIs of the datasets opened so far, a change of version included."""
    uris: list[str] = []
    open_dataset, check_out = lance.dataset, lance.LanceDataset.checkout_version

    def opened(uri: str, **options: Any) -> lance.LanceDataset:
        uris.append(uri)
        return open_dataset(uri, **options)

    def checked_out(dataset: lance.LanceDataset, version: int) -> lance.LanceDataset:
        uris.append(dataset.uri)
        return check_out(dataset, version)

    monkeypatch.setattr(lance, "dataset", opened)
    monkeypatch.setattr(lance.LanceDataset, "checkout_version", checked_out)
    yield uris


def made_up(recipe: Recipe, n_rows: int = 300, uri: str = "a") -> Table:
    return add_files(recipe, [uri], n_rows, CLUSTERS)


def test_search_vectors_of_a_snapshot_never_opens_it_again(
    tmp_path: Path, opens: list[str]
) -> None:
    snapshot = made_up(recipe_for(tmp_path)).open()
    space, vectors = snapshot.space()[1], CLUSTERS.draw(4, seed=1)
    opens.clear()
    hits = [snapshot.search_vectors(vectors, space, Query(k=3)) for _ in range(10)]
    assert opens == []
    assert [len(nearest) for nearest in hits[0]] == [3] * 4
    stored = np.array(snapshot.dataset.to_table(columns=["vector"]).column(0).to_pylist())
    best = sorted(stored @ vectors[0])[-1]
    assert hits[0][0][0].score == pytest.approx(best, abs=1e-5)


def test_search_vectors_of_another_space_is_refused(tmp_path: Path) -> None:
    snapshot = made_up(recipe_for(tmp_path)).open()
    other = describe_model(recipe_for(tmp_path, model={"dim": 16}).model).space
    with pytest.raises(LakeError, match="differ in dim"):
        snapshot.search_vectors(np.zeros((1, 16), np.float32), other)


def test_reads_of_a_snapshot_open_nothing(tmp_path: Path, opens: list[str]) -> None:
    recipe = recipe_for(tmp_path)
    snapshot = made_up(recipe).open()
    opens.clear()
    assert [version.n_rows for version in file_versions(snapshot)] == [300]
    assert [column.state for column in columns(snapshot)] == ["in service"]
    assert stored_index(snapshot) is None and snapshot.recipe_name() == recipe.name
    assert verify(snapshot, [], []).passed and snapshot.cutter() is not None
    assert snapshot.newest() is snapshot
    assert opens == []


def test_newest_after_a_commit_is_another_snapshot_and_this_one_stays(tmp_path: Path) -> None:
    recipe = recipe_for(tmp_path)
    snapshot = made_up(recipe).open()
    made_up(recipe, 20, uri="b")
    assert (snapshot.n_rows, snapshot.newest().n_rows) == (300, 320)
    assert snapshot.table.open(snapshot.version).version == snapshot.version


def test_refresh_indexes_opens_the_table_once(tmp_path: Path, opens: list[str]) -> None:
    recipe = recipe_for(tmp_path, index={"full_text": True, "min_rows": 1_000})
    table = made_up(recipe)
    opens.clear()
    assert refresh_indexes(table.open(), IndexPlan.of(recipe)) is None
    assert len(opens) == 1
    indexes = coverage(table.dataset())
    assert indexes.keys() == {"file_key_idx", "source_uri_idx", "chunk_id_idx", "text_idx"}
    assert not any(index.uncovered for index in indexes.values())
    made_up(recipe, 30, uri="b")
    opens.clear()
    refresh_indexes(table.open(), IndexPlan.of(recipe), merge=True)
    assert len(opens) == 1
    assert {index.parts for index in coverage(table.dataset()).values()} == {1}


@pytest.mark.slow
def test_refresh_indexes_trains_where_it_pays_and_drops_what_nobody_asks_for(
    tmp_path: Path,
) -> None:
    recipe = recipe_for(tmp_path)
    table = made_up(recipe)
    spec = IndexSpec(min_rows=256, target_recall=0.5, full_text=True)
    index = refresh_indexes(table.open(), IndexPlan(spec, text_hash=True))
    assert index is not None and {index.name, "text_hash_idx"} <= coverage(table.dataset()).keys()
    refresh_indexes(table.open(), IndexPlan(IndexSpec(min_rows=1_000), text_hash=False))
    assert coverage(table.dataset()).keys() == {"file_key_idx", "source_uri_idx", "chunk_id_idx"}


def test_ensure_table_opens_it_at_most_once(tmp_path: Path, opens: list[str]) -> None:
    recipe = recipe_for(tmp_path)
    space = describe_model(recipe.model).space
    cutter = Cutter({"name": "hashing"}, space.tokenizer, 8, "")
    assert ensure_table(recipe, space, cutter).cutter() == cutter
    assert opens == []
    ensure_table(recipe, space, cutter)
    assert len(opens) == 1


def opened_by_name(uris: list[str]) -> Counter[str]:
    """How often each table was opened."""
    return Counter(uri.rpartition("/")[2].removesuffix(".lance") for uri in uris)


def test_run_opens_each_table_once_a_stage(tmp_path: Path, opens: list[str]) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"x": "a few words"})
    recipe = recipe_for(tmp_path)
    run(recipe)  # embed, commit, finish; the ledger at its line and at the end, rejects at the end
    assert opened_by_name(opens) == {"docs": 3, "docs__files": 2, "docs__rejects": 1}
    opens.clear()
    run(recipe)  # plan and finish: nothing to do
    assert opened_by_name(opens) == {"docs": 2, "docs__files": 2, "docs__rejects": 2}
    write_jsonl(tmp_path, "a.jsonl", {"x": "other words"})
    opens.clear()
    run(recipe)
    assert opened_by_name(opens)["docs"] <= 8 and len(opens) <= 14


@pytest.mark.slow
def test_gate_opens_the_table_once_its_timed_searches_included(
    tmp_path: Path, opens: list[str]
) -> None:
    texts = {f"d{n}": f"document {n} has the number {n * 7919}" for n in range(40)}
    write_jsonl(tmp_path, "a.jsonl", texts)
    recipe = recipe_for(tmp_path)
    run(recipe)
    model = ModelSpec(name="hashing", dim=48)
    column = build_space(recipe, model, Resources(), "build").column
    opens.clear()
    report = gate(recipe, Resources(), column)
    assert report.latency is not None and len(opens) == 1


def test_status_opens_each_table_once(tmp_path: Path, opens: list[str]) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"x": "a few words"})
    recipe = recipe_for(tmp_path)
    run(recipe)
    opens.clear()
    assert status(recipe).rows == 1
    assert set(opened_by_name(opens).values()) == {1}


def test_record_rejects_opens_the_rejects_once(tmp_path: Path, opens: list[str]) -> None:
    table = made_up(recipe_for(tmp_path))
    ledger.add_rejects(table, [Reject("a", None, None, "unreadable", "gone")], "run")
    opens.clear()
    ledger.record_rejects(table, ["a"], iter([]), "run")
    assert len(opens) <= 2
    assert ledger.reject_rows(table).num_rows == 0
