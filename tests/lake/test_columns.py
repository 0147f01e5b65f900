"""Columns of several spaces in one table, filled beside writers, and switched in one commit."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import lance
import lancedb
import numpy as np
import numpy.typing as npt
import pytest

from embedding_core.encoder.engines import describe_model
from embedding_core.errors import LakeError
from embedding_core.identity import space_id
from embedding_core.lake import schema
from embedding_core.lake.index.scalar import coverage
from embedding_core.lake.index.vector import refresh_vector_index
from embedding_core.lake.lock import locked
from embedding_core.lake.rows.commit import fragments_exist, replace_rows, write_fragments
from embedding_core.lake.spaces.filling import PlacedVectors, fill_fragment, fragment_rows
from embedding_core.lake.spaces.switching import (
    REFUSALS_KEPT,
    GateAnswer,
    promote,
    refuse,
    releases,
    retire,
    rollback,
)
from embedding_core.lake.spaces.vector_columns import add_column, columns, missing_rows, model_of
from embedding_core.lake.table import Table, table_of
from embedding_core.lake.upkeep import compaction
from embedding_core.lake.upkeep.compaction import maintain_table
from embedding_core.recipe import IndexSpec, ModelSpec
from tests.driver import recipe_for
from tests.s3 import S3Server
from tests.synthetic import Clusters, add_files, arrow_schema_of, rows

CLUSTERS = Clusters.make(30, 32)
NEW_MODEL = ModelSpec(name="hashing", dim=16)
NEW = describe_model(NEW_MODEL).space
NEW_ID = space_id(NEW)
HIDDEN = schema.hidden_name(NEW_ID)


def made_up(folder: Path, n_fragments: int = 3, n_rows: int = 40) -> Table:
    recipe = recipe_for(folder)
    for number in range(n_fragments):
        add_files(recipe, [f"f{number}"], n_rows, CLUSTERS, seed=number)
    return table_of(recipe)


def vector_of(chunk_id: str, dim: int = 16) -> npt.NDArray[np.float32]:
    """A unit vector that only this row has."""
    drawn = np.random.default_rng(int(chunk_id[:12], 16)).standard_normal(dim)
    unit: npt.NDArray[np.float32] = (drawn / np.linalg.norm(drawn)).astype(np.float32)
    return unit


def placed(table: Table, fragment_id: int, dim: int = 16) -> Iterator[PlacedVectors]:
    for offsets, batch in fragment_rows(table, fragment_id, ["chunk_id"], batch_rows=16):
        ids = batch.column("chunk_id").to_pylist()
        yield PlacedVectors(offsets, np.stack([vector_of(chunk_id, dim) for chunk_id in ids]))


def fill(table: Table, identifier: str = NEW_ID, dim: int = 16) -> list[int]:
    """Fill what is missing; the fragments that were."""
    todo = list(missing_rows(table.dataset(), identifier))
    for fragment_id in todo:
        fill_fragment(table, identifier, fragment_id, placed(table, fragment_id, dim))
    return todo


def build(table: Table) -> str:
    name = add_column(table, NEW, NEW_MODEL, "run")
    fill(table)
    return name


def stored(table: Table, column: str) -> dict[str, list[float] | None]:
    rows = table.dataset().to_table(columns=["chunk_id", column]).to_pylist()
    return {row["chunk_id"]: row[column] for row in rows}


def assert_each_row_has_its_own(table: Table, column: str) -> None:
    vectors = stored(table, column)
    assert vectors
    for chunk_id, vector in vectors.items():
        assert vector is not None
        assert np.allclose(vector, vector_of(chunk_id, len(vector)), atol=1e-6)


def plain_search(table: Table, dim: int) -> list[str]:
    """What a LanceDB client that knows nothing of embedlake finds, without a column name."""
    options = table.lake.options or None
    opened = lancedb.connect(table.lake.uri, storage_options=options).open_table(table.name)
    return [row["chunk_id"] for row in opened.search(np.ones(dim, "f4")).limit(3).to_list()]


async def async_search(table: Table, dim: int) -> list[str]:
    """The same through LanceDB's async client, which must be told the column."""
    connection = await lancedb.connect_async(
        table.lake.uri, storage_options=table.lake.options or None
    )
    opened = await connection.open_table(table.name)
    nearest = opened.query().nearest_to(np.ones(dim, "f4")).column("vector")
    return [row["chunk_id"] for row in await nearest.limit(3).to_list()]


def assert_plain_clients_search(table: Table, dim: int) -> None:
    assert len(plain_search(table, dim)) == 3
    assert len(asyncio.run(async_search(table, dim))) == 3


# Adding and filling


def test_add_column_twice_is_one_column_that_says_what_it_is(tmp_path: Path) -> None:
    table = made_up(tmp_path)
    assert add_column(table, NEW, NEW_MODEL, "run") == HIDDEN
    version = table.dataset().version
    assert add_column(table, NEW, NEW_MODEL, "another run") == HIDDEN
    assert table.dataset().version == version
    serving, building = columns(table)
    assert (serving.column, serving.state, serving.missing_rows) == ("vector", "in service", 0)
    assert (building.column, building.state, building.dim) == (HIDDEN, "building", NEW.dim)
    assert (building.model, building.missing_rows, building.run_id) == (NEW.model, 120, "run")
    assert building.made_at is not None and building.filled_share == 0.0
    assert model_of(table.dataset(), HIDDEN) == NEW_MODEL


def test_column_of_a_build_that_lost_its_lock_is_not_added(tmp_path: Path) -> None:
    table = made_up(tmp_path, 1)

    def check() -> None:
        raise LakeError("lost")

    with pytest.raises(LakeError, match="lost"):
        add_column(table, NEW, NEW_MODEL, "run", check)
    assert HIDDEN not in table.open().schema.names


def test_add_column_name_of_something_else_is_refused(tmp_path: Path) -> None:
    table = made_up(tmp_path, 1)
    table.dataset().add_columns({HIDDEN: "chunk_index"})
    with pytest.raises(LakeError, match=f"has a column '{HIDDEN}'"):
        add_column(table, NEW, NEW_MODEL, "run")


def test_fill_fragment_row_by_row_with_deleted_rows_between(tmp_path: Path) -> None:
    table = made_up(tmp_path)
    table.dataset().delete("chunk_index < 3 OR chunk_index IN (17, 18, 30) OR chunk_index > 37")
    build(table)
    assert missing_rows(table.dataset(), NEW_ID) == {}
    assert_each_row_has_its_own(table, HIDDEN)
    table.dataset().validate()


def test_fill_fragment_only_the_missing_ones_are_left(tmp_path: Path) -> None:
    table = made_up(tmp_path)
    add_column(table, NEW, NEW_MODEL, "run")
    first, *others = missing_rows(table.dataset(), NEW_ID)
    fill_fragment(table, NEW_ID, first, placed(table, first))
    assert missing_rows(table.dataset(), NEW_ID) == dict.fromkeys(others, 40)
    assert columns(table)[1].filled_share == pytest.approx(1 / 3)
    made_up(tmp_path, 4)  # rows of three known files and one new one arrive
    assert set(fill(table)) >= set(others)
    assert columns(table)[1].state == "ready"
    assert_each_row_has_its_own(table, HIDDEN)


def test_fill_fragment_beside_deletes_and_appends(tmp_path: Path) -> None:
    table = made_up(tmp_path)
    add_column(table, NEW, NEW_MODEL, "run")
    first = next(iter(missing_rows(table.dataset(), NEW_ID)))

    def meanwhile() -> Iterator[PlacedVectors]:
        for number, batch in enumerate(placed(table, first)):
            yield batch
            table.dataset().delete(f"chunk_index = {number}")
            add_files(recipe_for(tmp_path), [f"new{number}"], 5, CLUSTERS)

    assert fill_fragment(table, NEW_ID, first, meanwhile()).committed
    assert first not in missing_rows(table.dataset(), NEW_ID)
    fill(table)
    assert_each_row_has_its_own(table, HIDDEN)


def test_fill_fragment_many_at_once(tmp_path: Path) -> None:
    table = made_up(tmp_path, 12, 10)
    add_column(table, NEW, NEW_MODEL, "run")

    def one(fragment_id: int) -> bool:
        vectors = placed(table, fragment_id)
        return fill_fragment(table, NEW_ID, fragment_id, vectors).committed

    with ThreadPoolExecutor(6) as workers:
        assert all(workers.map(one, missing_rows(table.dataset(), NEW_ID)))
    assert missing_rows(table.dataset(), NEW_ID) == {}
    assert_each_row_has_its_own(table, HIDDEN)


def test_fill_fragment_that_is_gone_is_left_and_its_rows_stay_missing(tmp_path: Path) -> None:
    table = made_up(tmp_path)
    add_column(table, NEW, NEW_MODEL, "run")
    first = next(iter(missing_rows(table.dataset(), NEW_ID)))

    def compacting() -> Iterator[PlacedVectors]:
        yield from placed(table, first)
        table.dataset().optimize.compact_files()

    assert not fill_fragment(table, NEW_ID, first, compacting()).committed
    assert sum(missing_rows(table.dataset(), NEW_ID).values()) == 120
    fill(table)
    assert_each_row_has_its_own(table, HIDDEN)


def test_fill_fragment_rows_without_a_vector_are_missing_until_filled_again(
    tmp_path: Path,
) -> None:
    table = made_up(tmp_path, 1)
    add_column(table, NEW, NEW_MODEL, "run")

    def some_without() -> Iterator[PlacedVectors]:
        for batch in placed(table, 0):
            batch.vectors[2] = np.nan
            yield batch

    filled = fill_fragment(table, NEW_ID, 0, some_without())
    assert (filled.rows, filled.missing_rows) == (37, 3)
    assert missing_rows(table.dataset(), NEW_ID) == {0: 3}
    with pytest.raises(LakeError, match="3 of 40 rows"):
        promote(table, HIDDEN, "me")
    fill(table)
    assert_each_row_has_its_own(table, HIDDEN)
    promote(table, HIDDEN, "me")


@pytest.mark.parametrize("spoil", ["short", "half", "infinite"])
def test_fill_fragment_wrong_vectors_commit_nothing(tmp_path: Path, spoil: str) -> None:
    table = made_up(tmp_path, 1)
    add_column(table, NEW, NEW_MODEL, "run")
    batches = list(placed(table, 0))
    if spoil == "short":
        batches.pop()
    else:
        batches[1].vectors[3] *= 0.5 if spoil == "half" else np.inf
    with pytest.raises(LakeError, match=r"every row|not of unit length"):
        fill_fragment(table, NEW_ID, 0, iter(batches))
    assert missing_rows(table.dataset(), NEW_ID) == {0: 40}


def test_fill_fragment_lost_reply_commits_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = made_up(tmp_path, 1)
    add_column(table, NEW, NEW_MODEL, "run")
    batches = list(placed(table, 0))
    real = lance.LanceDataset.commit

    def commit_then_fail(*args: object, **kwargs: object) -> None:
        real(*args, **kwargs)
        raise OSError("connection reset")

    monkeypatch.setattr(lance.LanceDataset, "commit", commit_then_fail)
    before = table.dataset().version
    assert fill_fragment(table, NEW_ID, 0, iter(batches)).committed
    assert table.dataset().version == before + 1


# Switching


def test_promote_rollback_retire_are_one_version_each_and_recorded(tmp_path: Path) -> None:
    table = made_up(tmp_path)
    old_id, old = table.space()
    old_vectors = stored(table, "vector")
    version = build(table) and table.dataset().version
    promote(table, HIDDEN, "ann", "run 1")
    assert table.dataset().version == version + 1
    assert table.space() == (NEW_ID, NEW)
    assert_each_row_has_its_own(table, "vector")
    kept = schema.hidden_name(old_id)
    assert [column.state for column in columns(table)] == ["in service", "previous"]
    assert stored(table, kept) == old_vectors
    assert b'"dim": 16' in table.dataset().schema.metadata[b"embedding_functions"]
    rollback(table, "bob")
    assert table.dataset().version == version + 2
    assert table.space() == (old_id, old) and stored(table, "vector") == old_vectors
    assert b'"dim": 32' in table.dataset().schema.metadata[b"embedding_functions"]
    retire(table, HIDDEN, "ann")
    assert table.dataset().version == version + 3
    assert [column.column for column in columns(table)] == ["vector"]
    history = releases(table.open())
    assert [(release.action, release.by, release.run_id) for release in history] == [
        ("retire", "ann", None), ("rollback", "bob", None), ("promote", "ann", "run 1"),
    ]  # fmt: skip
    assert (history[2].from_space, history[2].to_space) == (old_id, NEW_ID)
    assert table.open().recipe_name() == "test"


def test_refusals_change_nothing_and_push_no_change_out_of_the_history(tmp_path: Path) -> None:
    table = made_up(tmp_path, 1, 4)
    old_id, _ = table.space()
    build(table)
    promote(table, HIDDEN, "ann")
    no = GateAnswer("no", 30, "labelled", 0.1, 0.5, 0.4, -0.1, -0.2, -0.05, {"ndcg@10": "less"})
    schema_before = table.dataset().schema.remove_metadata()
    for number in range(REFUSALS_KEPT + 1):
        refuse(table, (f"space {number}", "model"), "reembed", None, no)
    assert table.dataset().schema.remove_metadata() == schema_before
    history = releases(table.open())
    assert [release.action for release in history] == ["refuse"] * REFUSALS_KEPT + ["promote"]
    assert (history[0].to_space, history[0].gate) == (f"space {REFUSALS_KEPT}", no)
    assert history[-2].to_space == "space 1", "the oldest refusal is forgotten"
    rollback(table, "bob")
    assert table.space()[0] == old_id


def test_promote_after_a_retired_column_keeps_each_column_its_own_data(tmp_path: Path) -> None:
    table = made_up(tmp_path)
    build(table)
    promote(table, HIDDEN, "me")
    retire(table, columns(table)[1].column, "me")  # leaves a gap in the field ids
    third = replace(NEW, dim=8)
    name = add_column(table, third, ModelSpec(name="hashing", dim=8), "run")
    fill(table, space_id(third), 8)
    promote(table, name, "me")
    assert_each_row_has_its_own(table, "vector")
    assert_each_row_has_its_own(table, HIDDEN)
    rollback(table, "me")
    assert table.space()[0] == NEW_ID
    assert_each_row_has_its_own(table, "vector")
    assert_each_row_has_its_own(table, name)
    with pytest.raises(LakeError, match="retired"):
        rollback(table, "me")


def test_promote_half_filled_column_is_refused(tmp_path: Path) -> None:
    table = made_up(tmp_path)
    add_column(table, NEW, NEW_MODEL, "run")
    fill_fragment(table, NEW_ID, 0, placed(table, 0))
    version = table.dataset().version
    with pytest.raises(LakeError, match="80 of 120 rows"):
        promote(table, HIDDEN, "me")
    assert table.dataset().version == version


@pytest.mark.parametrize(
    ("column", "why"),
    [("vector", "is in service"), ("text", "no vectors of a space"), ("none", "no column")],
)
@pytest.mark.parametrize("change", [promote, retire])
def test_promote_and_retire_wrong_column_is_refused(
    tmp_path: Path, change: Callable[[Table, str, str], object], column: str, why: str
) -> None:
    table = made_up(tmp_path, 1)
    build(table)
    with pytest.raises(LakeError, match=why):
        change(table, column, "me")
    assert releases(table.open()) == ()


def test_promote_table_without_rows_is_refused(tmp_path: Path) -> None:
    table = made_up(tmp_path, 1)
    add_column(table, NEW, NEW_MODEL, "run")
    table.dataset().delete("true")
    with pytest.raises(LakeError, match="has no rows"):
        promote(table, HIDDEN, "me")


def test_rollback_with_nothing_to_go_back_to_is_refused(tmp_path: Path) -> None:
    table = made_up(tmp_path, 1)
    build(table)
    with pytest.raises(LakeError, match="nothing to go back to"):
        rollback(table, "me")


def test_promote_rows_committed_in_between_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = made_up(tmp_path)
    build(table)
    real, arrivals = lance.LanceDataset.commit, iter([True])

    def rows_come_first(*args: Any, **named: Any) -> Any:
        if next(arrivals, False):
            add_files(recipe_for(tmp_path), ["late"], 7, CLUSTERS)
        return real(*args, **named)

    monkeypatch.setattr(lance.LanceDataset, "commit", rows_come_first)
    with pytest.raises(LakeError, match="7 of 127 rows"):
        promote(table, HIDDEN, "me")
    assert table.space()[0] != NEW_ID
    arrivals = iter([True])
    fill(table)
    with pytest.raises(LakeError, match="7 of 134 rows"):
        promote(table, HIDDEN, "me")
    fill(table)
    promote(table, HIDDEN, "me")
    assert_each_row_has_its_own(table, "vector")


def test_rollback_refused_until_newer_rows_are_filled_or_told_now(tmp_path: Path) -> None:
    table = made_up(tmp_path)
    old_id = table.space()[0]
    build(table)
    promote(table, HIDDEN, "me")
    newer = recipe_for(tmp_path, model={"dim": 16})
    add_files(newer, ["new"], 10, Clusters.make(30, 16))
    with pytest.raises(LakeError, match="10 of 130 rows"):
        rollback(table, "me")
    rollback(table, "me", now=True)
    assert table.space()[0] == old_id
    assert sum(missing_rows(table.dataset(), old_id).values()) == 10
    table.dataset().optimize.compact_files()  # rows with and without a vector in one file
    assert missing_rows(table.dataset(), old_id) == {
        table.dataset().get_fragments()[0].fragment_id: 10
    }
    fill(table, old_id, 32)  # the column in service is filled like any other
    assert missing_rows(table.dataset(), old_id) == {}
    assert_each_row_has_its_own(table, "vector")


def test_replace_rows_written_while_another_space_served_are_refused(tmp_path: Path) -> None:
    table, recipe = made_up(tmp_path, 1), recipe_for(tmp_path)
    old_id = table.space()[0]
    other = replace(table.space()[1], max_tokens=9)  # vectors of the same form, another space
    name = add_column(table, other, NEW_MODEL, "run")
    fill(table, space_id(other), 32)
    promote(table, name, "me")
    batches = rows(recipe, [("new", "new")], 10, CLUSTERS)
    fragments = write_fragments(table, batches, arrow_schema_of(recipe))
    rollback(table, "me")
    assert not fragments_exist(table, fragments)
    with pytest.raises(LakeError, match="was switched"):
        replace_rows(table, "file_key", (), fragments, old_id)
    assert table.dataset().count_rows() == 40


@pytest.mark.slow
def test_maintain_while_building_leaves_the_fragments_and_compacts_after(tmp_path: Path) -> None:
    table = made_up(tmp_path)
    add_column(table, NEW, NEW_MODEL, "run")
    fill_fragment(table, NEW_ID, 0, placed(table, 0))
    with locked(table, "a build", 0, kind="build"):
        assert compaction.compact(table) == 0
    fill(table)
    promote(table, HIDDEN, "me")
    add_files(recipe_for(tmp_path, model={"dim": 16}), ["new"], 10, Clusters.make(30, 16))
    report = maintain_table(table, timedelta(hours=1))
    assert (report.problems, report.fragments_merged) == ((), 4)
    old = columns(table)[1]
    assert (old.state, old.missing_rows) == ("previous", 10)
    fill(table, old.space_id, 32)
    rollback(table, "me")
    assert columns(table)[0].missing_rows == 0


def test_maintain_column_that_nobody_builds_any_more_keeps_what_it_has(tmp_path: Path) -> None:
    table = made_up(tmp_path)
    add_column(table, NEW, NEW_MODEL, "run")
    filled = fill_fragment(table, NEW_ID, 0, placed(table, 0))
    assert maintain_table(table, timedelta(hours=1)).fragments_merged > 0
    column = columns(table)[1]
    assert column.state == "building" and len(table) - column.missing_rows == filled.rows


@pytest.mark.slow
def test_index_of_each_space_follows_its_column(tmp_path: Path) -> None:
    spec = IndexSpec(min_rows=256)
    table = made_up(tmp_path, 3, 200)
    old = refresh_vector_index(table, spec)
    build(table)
    new = refresh_vector_index(table, spec, column=HIDDEN)
    assert old is not None and new is not None and old.name != new.name
    promote(table, HIDDEN, "me")
    kept = columns(table)[1].column
    assert {name: index.columns for name, index in coverage(table.dataset()).items()} == {
        old.name: (kept,), new.name: ("vector",),
    }  # fmt: skip
    assert table.open().index_settings()["name"] == new.name
    version = table.dataset().version
    assert refresh_vector_index(table, spec) == new  # nothing is built again
    assert table.dataset().version == version
    rollback(table, "me")
    assert refresh_vector_index(table, spec) == old
    retire(table, HIDDEN, "me")
    assert set(coverage(table.dataset())) == {old.name}
    assert not any(new.name in key for key in table.dataset().metadata)


def test_queries_during_promote_and_rollback_are_each_answered_by_one_space(
    tmp_path: Path,
) -> None:
    table = made_up(tmp_path)
    build(table)
    spaces = {32: "old", 16: "new"}
    answers: list[str] = []
    failures: list[BaseException] = []
    stop = threading.Event()

    def ask() -> None:
        client = lancedb.connect(table.lake.uri)
        while not stop.is_set():
            try:
                opened = client.open_table(table.name)
                dim = opened.schema.field("vector").type.list_size
                rows = opened.search(np.ones(dim, "f4")).limit(5).to_arrow()
                assert rows.num_rows == 5 and rows.column("vector").null_count == 0
                assert rows.schema.field("vector").type.list_size == dim
                answers.append(spaces[dim])
            except BaseException as error:
                failures.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    for _ in range(4):
        promote(table, HIDDEN, "me")
        rollback(table, "me")
    stop.set()
    asking.join()
    assert failures == [] and set(answers) <= {"old", "new"} and answers


# Plain clients


def walk_through_a_release(table: Table) -> None:
    """A plain client searches at every step of a release, with a previous column kept."""
    assert_plain_clients_search(table, 32)
    add_column(table, NEW, NEW_MODEL, "run")
    assert_plain_clients_search(table, 32)
    first = next(iter(missing_rows(table.dataset(), NEW_ID)))
    fill_fragment(table, NEW_ID, first, placed(table, first))
    assert_plain_clients_search(table, 32)
    fill(table)
    assert_plain_clients_search(table, 32)
    promote(table, HIDDEN, "me")
    assert_plain_clients_search(table, 16)
    assert_each_row_has_its_own(table, "vector")
    rollback(table, "me")
    assert_plain_clients_search(table, 32)
    promote(table, HIDDEN, "me")
    retire(table, columns(table)[1].column, "me")
    assert_plain_clients_search(table, 16)


def test_plain_client_searches_before_during_and_after(tmp_path: Path) -> None:
    walk_through_a_release(made_up(tmp_path))


@pytest.mark.e2e
def test_release_on_s3(s3: S3Server, tmp_path: Path) -> None:
    uri = f"s3://{s3.new_bucket()}/lake"
    storage = s3.storage.model_dump(exclude_none=True)
    recipe = recipe_for(tmp_path, lake={"uri": uri, "storage": storage})
    for number in range(2):
        add_files(recipe, [f"f{number}"], 20, CLUSTERS, seed=number)
    table = table_of(recipe)
    walk_through_a_release(table)
    other = replace(NEW, dim=8)
    add_column(table, other, ModelSpec(name="hashing", dim=8), "run")
    batches = list(placed(table, 0, 8))
    batches[0].vectors[5] = np.nan
    assert fill_fragment(table, space_id(other), 0, batches).missing_rows == 1
    assert missing_rows(table.dataset(), space_id(other)) == {0: 1, 1: 20}
