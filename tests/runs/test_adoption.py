"""A table that follows its recipe: corrected recipes, metadata columns, and ``drop``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lance
import pytest

from embedding_core.errors import LakeError, Locked, SetupError
from embedding_core.lake.lock import locked
from embedding_core.lake.ownership import adoption as adoption_module
from embedding_core.lake.table import Lake, table_of
from embedding_core.recipe import Recipe, Resources
from embedding_core.reports.plan import PlanView
from embedding_core.runs.embed.planning import plan
from embedding_core.runs.removal import drop, what_drop_removes
from embedding_core.runs.space.build import build_space
from tests.driver import begin, recipe_for, rows, run, texts, write_jsonl

RECORDS = [
    {"id": "a", "text": "about pears", "year": 1999, "lang": "en"},
    {"id": "b", "text": "about plums", "year": 2001},
]


def with_metadata(folder: Path, **columns: Any) -> Recipe:
    return recipe_for(folder, source={"metadata": columns})


# A table without rows is nobody's decision yet


@pytest.mark.slow
@pytest.mark.parametrize(
    "corrected",
    [
        {"source": {"text": "text"}},
        {"source": {"text": "text", "metadata": {"year": "int"}}},
        {"source": {"text": "text"}, "model": {"dim": 64}},
        {"source": {"text": "text"}, "model": {"max_tokens": 64}},
        {"source": {"text": "text"}, "chunk": {"strategy": "none"}},
    ],
    ids=["text", "metadata", "dim", "same dim", "chunk"],
)
def test_run_corrected_recipe_takes_the_table_of_a_run_that_gave_nothing(
    tmp_path: Path, corrected: dict[str, Any]
) -> None:
    write_jsonl(tmp_path, "a.jsonl", RECORDS)
    wrong = recipe_for(tmp_path, source={"text": "body", "metadata": {"year": "string"}})
    assert run(wrong).outcome == "failed"
    right = recipe_for(tmp_path, **corrected)
    report = run(right)
    assert (report.outcome, report.rows, report.rejects) == ("done", 2, {})
    assert plan(right).is_empty
    assert table_of(right).dataset().schema.field("vector").type.list_size == right.model.dim
    assert table_of(right).space()[0] == plan(right).space_id


def test_run_empty_table_of_the_same_recipe_is_left_as_it_is(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", [{"id": "a", "body": "x"}])
    recipe = recipe_for(tmp_path)
    begin(recipe)
    version = table_of(recipe).dataset().version
    begin(recipe)
    assert table_of(recipe).dataset().version == version


@pytest.mark.slow
def test_run_another_tokenizer_takes_an_empty_table(tmp_path: Path, tiny_qwen3: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", [{"id": "a", "body": "x"}])
    run(recipe_for(tmp_path))
    other = recipe_for(
        tmp_path, source={"text": "body"}, model={"name": str(tiny_qwen3), "dim": None}
    )
    assert run(other).rows == 1
    cutter = table_of(other).open().cutter()
    assert cutter is not None and cutter.model["name"] == str(tiny_qwen3)


def test_plan_empty_table_of_another_recipe_is_refused(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", [{"id": "a", "body": "x"}])
    run(recipe_for(tmp_path))
    with pytest.raises(LakeError, match="belongs to the recipe 'test'"):
        plan(recipe_for(tmp_path, name="other"))


def test_plan_table_with_rows_keeps_its_space(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", RECORDS)
    run(recipe_for(tmp_path))
    with pytest.raises(LakeError, match="never mix") as caught:
        plan(recipe_for(tmp_path, model={"dim": 64}))
    assert caught.value.action == "reembed"


# Metadata columns come and go


def test_run_added_column_is_filled_without_embedding_again(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", RECORDS)
    write_jsonl(tmp_path, "c.jsonl", [{"id": "c", "text": "about figs", "lang": "fr"}])
    run(with_metadata(tmp_path, year="int"))
    recipe = with_metadata(tmp_path, lang="string", year="int")
    planned = plan(recipe)
    assert planned.columns_added == ("lang",) and not planned.columns_dropped
    assert any("columns to add: lang" in line for line in PlanView(planned).lines())
    assert {one.why for one in planned.files} == {"metadata columns changed"}
    report = run(recipe)
    assert (report.embedded, report.reused, report.outcome) == (0, 3, "done")
    filled = rows(recipe, "doc_id", "lang", "year")
    values = {row["doc_id"]: (row["lang"], row["year"]) for row in filled}
    assert values == {"a": ("en", 1999), "b": (None, 2001), "c": ("fr", None)}
    assert plan(recipe).is_empty
    names = table_of(recipe).dataset().schema.names
    assert names.index("lang") < names.index("year") < names.index("vector")


def test_run_removed_column_is_dropped_after_a_word(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", RECORDS)
    run(with_metadata(tmp_path, year="int", lang="string"))
    recipe = with_metadata(tmp_path, year="int")
    planned = plan(recipe)
    assert planned.columns_dropped == ("lang",)
    assert any(
        "columns to DROP with their values: lang" in line for line in PlanView(planned).lines()
    )
    report = run(recipe)
    assert (report.embedded, report.reused) == (0, 2)
    assert "lang" not in table_of(recipe).dataset().schema.names
    assert [row["year"] for row in rows(recipe, "year")] == [1999, 2001]
    again = with_metadata(tmp_path, year="int", lang="string")
    assert run(again).embedded == 0
    assert {row["lang"] for row in rows(again, "lang")} == {"en", None}


def test_run_column_of_another_type_is_made_again(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", RECORDS)
    run(with_metadata(tmp_path, year="int"))
    recipe = with_metadata(tmp_path, year="float")
    planned = plan(recipe)
    assert planned.columns_added == planned.columns_dropped == ("year",)
    assert run(recipe).embedded == 0
    assert [row["year"] for row in rows(recipe, "year")] == [1999.0, 2001.0]


def test_run_cut_off_amid_a_change_of_columns_is_finished_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_jsonl(tmp_path, "a.jsonl", RECORDS)
    run(with_metadata(tmp_path, year="int"))
    recipe = with_metadata(tmp_path, lang="string")
    commits = 0
    real = adoption_module.commit_schema

    def cut_off(*arguments: Any) -> int:
        nonlocal commits
        commits += 1
        if commits == 2:  # the old column is gone and the new one there, the order is not right
            raise KeyboardInterrupt
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(adoption_module, "commit_schema", cut_off)
        with pytest.raises(KeyboardInterrupt):
            run(recipe)
    assert run(recipe).outcome == "done"
    assert [row["lang"] for row in rows(recipe, "lang")] == ["en", None]
    assert plan(recipe).is_empty


def test_run_column_added_by_hand_is_refused_and_kept(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", RECORDS)
    recipe = with_metadata(tmp_path, year="int")
    run(recipe)
    table_of(recipe).dataset().add_columns({"mine": "1"})
    with pytest.raises(LakeError, match=r"did not make \(mine: "):
        plan(recipe)
    assert "mine" in table_of(recipe).dataset().schema.names


@pytest.mark.slow
def test_run_columns_change_beside_a_kept_space(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", RECORDS)
    recipe = with_metadata(tmp_path, year="int")
    run(recipe)
    build_space(recipe, recipe.model.model_copy(update={"dim": 16}), Resources(), "build")
    newer = with_metadata(tmp_path, year="int", lang="string")
    assert run(newer).embedded == 0
    names = table_of(newer).dataset().schema.names
    assert sum(name.startswith("vector__") for name in names) == 1


# Plans judge what they sample


def test_plan_of_a_wrong_field_names_the_fields_there_are(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", [{"id": str(n), "title": "t", "text": "x"} for n in range(40)])
    planned = plan(recipe_for(tmp_path, source={"text": "body"}))
    (problem,) = planned.sample_problems
    assert problem.startswith("of 40 sampled records 40 rejected: missing_field: field 'body'")
    assert "the fields are 'id', 'title', 'text'" in problem
    assert any(problem in line for line in PlanView(planned).lines())


def test_plan_of_a_file_that_cannot_be_read_names_it(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path, "a.jsonl", {})
    path.with_suffix(".parquet").write_bytes(b"no parquet")
    path.unlink()
    (problem,) = plan(recipe_for(tmp_path)).sample_problems
    assert "a.parquet: corrupt_parquet" in problem


def test_plan_of_good_records_has_no_problem_and_its_time_includes_the_start(
    tmp_path: Path,
) -> None:
    write_jsonl(tmp_path, "a.jsonl", RECORDS)
    recipe = recipe_for(tmp_path)
    assert plan(recipe).sample_problems == ()
    run(recipe)
    assert plan(recipe).estimated_seconds is None, "nothing to do starts nothing"
    write_jsonl(tmp_path, "b.jsonl", {"c": "more"})
    seconds = plan(recipe).estimated_seconds
    assert seconds is not None and seconds >= 10


@pytest.mark.parametrize("changes", [{"text": "titel"}, {"metadata": {"lang": "int"}}])
def test_run_a_slip_in_a_changed_recipe_takes_no_rows_away(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    records = [{"id": str(n), "text": f"text {n}", "lang": "en"} for n in range(20)]
    write_jsonl(tmp_path, "a.jsonl", records)
    run(with_metadata(tmp_path, lang="string"))
    slip = recipe_for(tmp_path, source={"metadata": {"lang": "string"}} | changes)
    version = table_of(slip).dataset().version
    with pytest.raises(SetupError, match=r"100% of the table's files would lose their rows"):
        run(slip)
    tolerant = slip.model_copy(update={"max_rejected_share": 1.0})
    with pytest.raises(SetupError, match=r"sampled \(each was rejected, as max_rejected_share"):
        run(tolerant)
    assert table_of(slip).dataset().version == version
    assert run(slip, allow_removals=True).rows == 0


def test_run_a_file_whose_new_records_are_all_bad_is_no_slip_of_the_recipe(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", RECORDS)
    recipe = recipe_for(tmp_path)
    run(recipe)
    write_jsonl(tmp_path, "a.jsonl", [{"id": "a"}, {"id": "b"}])
    assert plan(recipe).lost_share == 0
    assert run(recipe).outcome == "failed"


def test_plan_names_an_empty_file_that_no_reader_takes(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path, "a.jsonl", {"a": "text"})
    path.with_name("b.parquet").write_bytes(b"")
    (problem,) = plan(recipe_for(tmp_path)).sample_problems
    assert "b.parquet: corrupt_parquet" in problem


# Dropping a table


@pytest.mark.slow
def test_drop_removes_the_table_with_all_that_belongs_to_it(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", RECORDS)
    recipe = recipe_for(tmp_path)
    other = recipe_for(tmp_path, lake={"table": "docs2"})
    run(recipe), run(other)
    found = what_drop_removes(recipe)
    assert found.rows == 2 and len(found.folders) == 5
    assert drop(recipe, 0).folders == found.folders
    assert not table_of(recipe).exists() and what_drop_removes(recipe).folders == ()
    left = {path.name for path in (tmp_path / "lake").iterdir()}
    assert left == {"docs2.lance", "docs2__files.lance", "docs2__rejects.lance", "_embedlake"}
    assert {path.name for path in (tmp_path / "lake" / "_embedlake").iterdir()} >= {"docs2"}
    assert texts(other) == ["about pears", "about plums"]
    assert run(recipe).embedded == 2


@pytest.mark.slow
def test_drop_waits_for_a_run_and_refuses_another_recipe(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", RECORDS)
    recipe = recipe_for(tmp_path)
    begin(recipe), run(recipe)
    with locked(table_of(recipe), "a run", 0), pytest.raises(Locked):
        drop(recipe, 0)
    assert table_of(recipe).exists()
    with pytest.raises(LakeError, match="belongs to the recipe"):
        drop(recipe_for(tmp_path, name="other"), 0)


def test_drop_finishes_what_a_crash_left(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", RECORDS)
    recipe = recipe_for(tmp_path)
    run(recipe)
    for manifest in (tmp_path / "lake" / "docs.lance" / "_versions").iterdir():
        manifest.unlink()
    assert drop(recipe, 0).rows == 0
    assert what_drop_removes(recipe).folders == ()


def test_drop_removes_a_table_that_cannot_be_read(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", RECORDS)
    recipe = recipe_for(tmp_path)
    run(recipe)
    for manifest in (tmp_path / "lake" / "docs.lance" / "_versions").iterdir():
        manifest.write_bytes(b"damaged")
    assert what_drop_removes(recipe).rows is None
    assert len(drop(recipe, 0).folders) == 5
    assert run(recipe).rows == 2


def test_lance_keeps_a_table_s_rows_when_columns_change(tmp_path: Path) -> None:
    """The recipe that column changes stand on, held against the installed Lance."""
    write_jsonl(tmp_path, "a.jsonl", RECORDS)
    recipe = with_metadata(tmp_path, year="int")
    run(recipe)
    run(with_metadata(tmp_path, lang="string"))
    dataset = lance.dataset(table_of(recipe).uri)
    assert dataset.to_table(filter="lang = 'en'", columns=["doc_id"]).to_pydict() == {
        "doc_id": ["a"]
    }
    dataset.optimize.compact_files()
    assert Lake.open(str(tmp_path / "lake")).table("docs").dataset().count_rows() == 2
    assert json.loads(dataset.schema.metadata[b"embedlake:metadata"]) == ["lang"]
