"""Damage to a table's files and indexes: kept out of commits, named, and made good by a run."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lance
import pytest

from embedding_core import Encoder
from embedding_core.errors import LakeError, Locked, Transient
from embedding_core.lake import ledger, lock, schema
from embedding_core.lake.damage import homeless_indexes
from embedding_core.lake.index import scalar, vector
from embedding_core.lake.index.vector import refresh_vector_index
from embedding_core.lake.query.search import Query
from embedding_core.lake.rows.commit import fragments_exist, replace_rows, write_fragments
from embedding_core.lake.spaces import filling, switching
from embedding_core.lake.spaces.switching import promote, releases, retire
from embedding_core.lake.table import Table, table_of
from embedding_core.recipe import IndexSpec, ModelSpec, Recipe, Resources
from embedding_core.runs.answers import search
from embedding_core.runs.embed.planning import plan
from embedding_core.runs.maintenance import maintain
from embedding_core.runs.space.build import build_space
from embedding_core.store import retry
from embedlake.cli.doctor import diagnose
from embedlake.settings import Settings
from tests.driver import recipe_for, rows, run, write_jsonl
from tests.synthetic import WORDS

pytestmark = pytest.mark.slow

SPEC = IndexSpec(min_rows=256, target_recall=0.5)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses and the heart beats of locks, shortened."""
    monkeypatch.setattr(retry, "FIRST_PAUSE_SECONDS", 0)
    monkeypatch.setattr(lock, "TIMING", lock.Timing(beat=0.01, poll=0.01))


def documents(n_documents: int, first: int = 0) -> dict[str, str]:
    return {
        str(n): f"{WORDS[n % 1_000]} {WORDS[n * 7 % 1_000]} {n}"
        for n in range(first, first + n_documents)
    }


def indexed(folder: Path) -> Recipe:
    """A table of 300 rows with a vector index, scalar ones and a full-text one."""
    write_jsonl(folder, "a.jsonl", documents(300))
    recipe = recipe_for(folder, index={"min_rows": 256, "target_recall": 0.5, "full_text": True})
    assert run(recipe).index is not None
    return recipe


def with_second_space(folder: Path) -> tuple[Recipe, Table, str]:
    """A table of 300 rows with a complete column beside the one in service; the column's name."""
    write_jsonl(folder, "a.jsonl", documents(300))
    recipe = recipe_for(folder)
    run(recipe)
    report = build_space(recipe, ModelSpec(name="hashing", dim=16), Resources(), "build")
    return recipe, table_of(recipe), report.column


def while_training(patch: pytest.MonkeyPatch, action: Callable[[], object]) -> None:
    """Do something once, between a training and its commit."""
    real, left = lance.LanceDataset.create_index, [action]

    def create(dataset: lance.LanceDataset, *options: Any, **named: Any) -> None:
        if left:
            left.pop()()
        real(dataset, *options, **named)

    patch.setattr(lance.LanceDataset, "create_index", create)


def lose_lock(patch: pytest.MonkeyPatch) -> None:
    """Let changes of spaces go on as they do when the training's lock was taken over."""

    @contextmanager
    def not_locked(*_args: Any, **_named: Any) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(check=lambda: None)

    patch.setattr(switching, "locked", not_locked)


@pytest.mark.parametrize("change", [retire, promote])
def test_change_of_spaces_while_an_index_is_trained_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[..., object]
) -> None:
    _, table, column = with_second_space(tmp_path)
    refused: list[str] = []

    def try_it() -> None:
        with pytest.raises(Locked, match="training an index") as caught:
            change(table, column, "me", wait_seconds=0)
        refused.append(str(caught.value))

    while_training(monkeypatch, try_it)
    assert refresh_vector_index(table, SPEC, column=column) is not None
    assert len(refused) == 1 and releases(table.open()) == ()
    change(table, column, "me", wait_seconds=0)


def with_rows_to_cover(folder: Path, patch: pytest.MonkeyPatch) -> tuple[Table, str]:
    """A table of two spaces whose index on ``vector`` does not cover 20 rows; the other column."""
    recipe, table, column = with_second_space(folder)
    recipe = recipe.model_copy(update={"index": SPEC})
    run(recipe)
    write_jsonl(folder, "b.jsonl", documents(20, first=300))
    with patch.context() as extending:
        extending.setattr(vector, "extend", lambda *_arguments: None)
        run(recipe)
    build_space(recipe, ModelSpec(name="hashing", dim=16), Resources(), "build")
    return table, column


def uncovered_rows(table: Table) -> int:
    """Rows that the index on ``vector`` does not cover."""
    name = schema.index_name(table.open().field("vector"))
    return scalar.unindexed_rows(table.dataset())[name]


def test_change_of_spaces_while_an_index_is_extended_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, column = with_rows_to_cover(tmp_path, monkeypatch)
    real, refused = scalar.extend, list[str]()

    def extend(*args: Any) -> None:
        with pytest.raises(Locked, match="training an index") as caught:
            promote(table, column, "me", wait_seconds=0)
        refused.append(str(caught.value))
        real(*args)

    monkeypatch.setattr(vector, "extend", extend)
    refresh_vector_index(table, SPEC)
    assert len(refused) == 1 and uncovered_rows(table) == 0


def test_refresh_vector_index_while_spaces_change_leaves_new_rows_to_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, _ = with_rows_to_cover(tmp_path, monkeypatch)
    with lock.locked(table, "a switch", 0, kind="index"):
        assert refresh_vector_index(table, SPEC) is not None
        assert uncovered_rows(table) == 20
    assert refresh_vector_index(table, SPEC) is not None
    assert uncovered_rows(table) == 0


def test_refresh_vector_index_column_retired_all_the_same_leaves_no_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lance commits an index on a column that is gone, and then panics."""
    recipe, table, column = with_second_space(tmp_path)
    lose_lock(monkeypatch)
    while_training(monkeypatch, lambda: retire(table, column, "me"))
    with pytest.raises(Transient, match="run the same command again"):
        refresh_vector_index(table, SPEC, column=column)
    assert homeless_indexes(table.dataset()) == ()
    assert table.dataset().count_rows("doc_id = '7'") == 1
    assert run(recipe).outcome == "done"


def test_refresh_vector_index_column_switched_all_the_same_is_not_measured_on_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, table, column = with_second_space(tmp_path)
    lose_lock(monkeypatch)
    while_training(monkeypatch, lambda: promote(table, column, "me"))
    with pytest.raises(Transient, match="switched or retired"):
        refresh_vector_index(table, SPEC)
    assert not [name for name in table.dataset().metadata if name.startswith("embedlake:index")]
    index = refresh_vector_index(table, SPEC)  # another try: of the space in service now
    assert index is not None and index.name == schema.index_name(
        table.dataset().schema.field("vector")
    )


def homeless(folder: Path) -> Recipe:
    """A table with an index whose column was retired while Lance trained it."""
    recipe, table, column = with_second_space(folder)
    before = table.dataset()
    retire(table, column, "me")
    before.create_index(column, "IVF_SQ", metric="cosine", num_partitions=1, name="lost")
    assert homeless_indexes(table.dataset()) == ("lost",)
    return recipe


@pytest.mark.parametrize("idle", [True, False])
def test_run_drops_an_index_whose_column_is_gone(tmp_path: Path, idle: bool) -> None:
    recipe = homeless(tmp_path)
    if not idle:
        write_jsonl(tmp_path, "a.jsonl", documents(299))
    assert run(recipe).outcome == "done"
    assert homeless_indexes(table_of(recipe).dataset()) == ()


def test_maintain_and_build_space_drop_an_index_whose_column_is_gone(tmp_path: Path) -> None:
    for number, heal in enumerate(
        [
            maintain,
            lambda recipe: build_space(
                recipe, ModelSpec(name="hashing", dim=8), Resources(), "build"
            ),
        ]
    ):
        recipe = homeless(tmp_path / str(number))
        heal(recipe)
        assert homeless_indexes(table_of(recipe).dataset()) == ()


def test_index_whose_column_is_gone_is_named_by_readers_and_doctor(tmp_path: Path) -> None:
    recipe = homeless(tmp_path)
    encoder = Encoder.load("hashing", dim=32)
    with pytest.raises(LakeError, match=r"column of index lost is gone") as caught:
        table_of(recipe).search("word1", encoder, where="doc_id = '7'")
    assert caught.value.action == "maintain"
    [lake] = [check for check in diagnose(Settings(), recipe) if check.name == "lake"]
    assert not lake.ok and "lost: its column is gone" in lake.detail


@pytest.mark.parametrize("idle", [True, False])
@pytest.mark.parametrize("damage", ["files missing", "file short", "bits"])
def test_run_makes_indexes_anew_that_cannot_be_used(
    tmp_path: Path, damage: str, idle: bool
) -> None:
    recipe = indexed(tmp_path)
    names = set(scalar.coverage(table_of(recipe).dataset()))
    for folder in (tmp_path / "lake" / "docs.lance" / "_indices").iterdir():
        if damage == "files missing":
            shutil.rmtree(folder)
        for file in folder.glob("*") if damage != "files missing" else ():
            content = bytearray(file.read_bytes())
            if damage == "bits":
                content[-24:-4] = bytes(20)  # the footer says where everything is
            file.write_bytes(content if damage == "bits" else content[: len(content) // 2])
    [lake] = [check for check in diagnose(Settings(), recipe) if check.name == "lake"]
    assert not lake.ok and "embedlake embed" in lake.detail
    if not idle:
        write_jsonl(tmp_path, "a.jsonl", documents(299))
    report = run(recipe)
    assert report.outcome == "done" and report.index is not None
    dataset = table_of(recipe).dataset()
    assert set(scalar.coverage(dataset)) == names
    assert dataset.count_rows("doc_id = '7'") == 1


def test_search_by_an_index_that_lost_its_files_names_it_and_maintenance_heals_it(
    tmp_path: Path,
) -> None:
    recipe = indexed(tmp_path)
    where = f"source_uri = '{tmp_path / 'src' / 'a.jsonl'}'"
    query = Query(k=2, where=where, exact=True)
    for folder in (tmp_path / "lake" / "docs.lance" / "_indices").iterdir():
        shutil.rmtree(folder)
    with pytest.raises(LakeError, match=r"index \w+ cannot be used: its files .* missing") as named:
        list(search(recipe, Resources(), {"q": "words"}, query))
    assert named.value.action == "maintain"
    maintain(recipe)
    (answer,) = search(recipe, Resources(), {"q": "words"}, query)
    assert len(answer.hits) == 2


def test_run_leaves_good_indexes_alone(tmp_path: Path) -> None:
    recipe = indexed(tmp_path)
    version = table_of(recipe).dataset().version
    run(recipe)
    assert table_of(recipe).dataset().version == version


def test_run_index_cut_off_by_a_lost_write_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_jsonl(tmp_path, "a.jsonl", documents(300))
    recipe = recipe_for(tmp_path, index={"min_rows": 256, "target_recall": 0.5})
    real, left = lance.LanceDataset.create_scalar_index, [True]

    def create(dataset: lance.LanceDataset, *args: Any, **named: Any) -> None:
        real(dataset, *args, **named)
        if left:
            left.pop()
            (file,) = sorted((tmp_path / "lake/docs.lance/_indices").rglob("*.lance"))[:1]
            shorten(file)

    monkeypatch.setattr(lance.LanceDataset, "create_scalar_index", create)
    assert run(recipe).outcome == "done"
    assert not left and table_of(recipe).dataset().count_rows("source_uri != ''") == 300


def shorten(file: Path) -> None:
    """As a lost write leaves a file: shorter, with its end in place."""
    content = file.read_bytes()
    file.write_bytes(content[:8] + content[12:])


def data_files(folder: Path, table: str = "docs") -> list[Path]:
    return sorted((folder / "lake" / f"{table}.lance" / "data").iterdir())


def lost_write(patch: pytest.MonkeyPatch, folder: Path, table: str) -> None:
    """Let Lance lose a write of the next data file of a table."""
    real, left = lance.fragment.write_fragments, [True]

    def write(*args: Any, **named: Any) -> Any:
        fragments = real(*args, **named)
        if left and str(args[1]).endswith(f"/{table}.lance"):
            left.pop()
            shorten(folder / "lake" / f"{table}.lance" / "data" / fragments[0].files[0].path)
        return fragments

    patch.setattr(lance.fragment, "write_fragments", write)


@pytest.mark.parametrize("name", ["docs", "docs__files", "docs__rejects"])
def test_write_cut_off_without_an_error_is_never_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"x": "words", "y": " "})
    recipe = recipe_for(tmp_path, max_rejected_share=1)
    lost_write(monkeypatch, tmp_path, name)
    with pytest.raises(Transient, match=r"has [\d,]+ bytes, its metadata says.*a write was lost"):
        run(recipe)
    assert run(recipe).outcome == "done"
    assert [row["doc_id"] for row in rows(recipe, "doc_id")] == ["x"]
    assert ledger.reject_rows(table_of(recipe)).num_rows == 1


def test_fragments_cut_off_after_they_were_written_are_not_committed(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"x": "words"})
    recipe = recipe_for(tmp_path)
    run(recipe)
    table = table_of(recipe)
    before = data_files(tmp_path)
    arrow_schema = table.dataset().schema
    fragments = write_fragments(table, iter(table.dataset().to_batches()), arrow_schema)
    assert fragments_exist(table, fragments)
    (new,) = set(data_files(tmp_path)) - set(before)
    shorten(new)
    assert not fragments_exist(table, fragments)
    version = table.dataset().version
    with pytest.raises(Transient, match="nothing was committed"):
        replace_rows(table, "file_key", [], fragments)
    assert table.dataset().version == version


def test_fill_fragment_file_cut_off_is_never_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_jsonl(tmp_path, "a.jsonl", documents(50))
    recipe = recipe_for(tmp_path)
    run(recipe)
    before, left = data_files(tmp_path), [True]

    class Lossy(filling.LanceFileWriter):  # type: ignore[misc]
        def close(self) -> Any:
            closed = super().close()
            if left:
                left.pop()
                (new,) = set(data_files(tmp_path)) - set(before)
                shorten(new)
            return closed

    monkeypatch.setattr(filling, "LanceFileWriter", Lossy)
    new = ModelSpec(name="hashing", dim=16)
    with pytest.raises(Transient):
        build_space(recipe, new, Resources(), "build")
    assert not left
    report = build_space(recipe, new, Resources(), "build")
    assert report.missing_rows == 0
    column = table_of(recipe).dataset().to_table(columns=[report.column]).column(0)
    assert column.null_count == 0


@pytest.mark.parametrize("name", ["docs", "docs__files", "docs__rejects"])
def test_table_with_a_short_file_is_named_with_the_way_out(tmp_path: Path, name: str) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"x": "words", "y": " "})
    recipe = recipe_for(tmp_path, max_rejected_share=1)
    run(recipe)
    (file,) = data_files(tmp_path, name)
    shorten(file)
    named = f"{file.name} has .* bytes, its metadata says"
    with pytest.raises(LakeError, match=named) as caught:
        plan(recipe)
    assert caught.value.action == "repair"
