"""Runs over recipes with a map: its module beside the recipe, its source part of the rows."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import embedlake
from embedding_core.errors import SetupError, UsageError
from embedding_core.recipe import Recipe, Resources
from embedding_core.runs.embed import planning
from embedding_core.runs.embed.chunk_stage import chunk_unit
from embedding_core.runs.embed.units import work_units
from embedding_core.sources import documents
from tests.driver import begin, rejects, rows, texts, write_jsonl
from tests.runs.test_slices import run_sliced

RECORDS = [
    {"id": "a", "turns": ["first", "second"]},
    {"id": "b", "turns": []},
    {"id": "c", "turns": None},
    {"id": "d", "turns": ["third"]},
]
SOURCE = """
def rows(record):
    return [{"id": f"{record['id']}-{n}", "text": text} for n, text in enumerate(record["turns"])]
"""


@pytest.fixture(autouse=True)
def own_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))


def write_recipe(folder: Path, module: str, **source: Any) -> Path:
    (folder / f"{module}.py").write_text(SOURCE)
    content = {
        "name": "mapped",
        "source": {"uri": "./src", "id": "id", "map": f"{module}:rows", **source},
        "model": {"name": "hashing", "dim": 32},
        "lake": {"uri": "./lake", "table": "docs"},
        "max_rejected_share": 0.4,
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.slow
def test_embed_finds_the_function_beside_its_recipe_and_lists_what_gave_nothing(
    tmp_path: Path,
) -> None:
    write_jsonl(tmp_path, "a.jsonl", RECORDS)
    recipe = Recipe.load(write_recipe(tmp_path, "map_for_a_run"))
    assert recipe.source.map is not None and recipe.source.map.folder == str(tmp_path)
    report = embedlake.embed(recipe, Resources(device="cpu"))
    assert (report.outcome, report.documents, report.rejected) == ("done", 3, 1)
    assert [row["doc_id"] for row in rows(recipe, "doc_id")] == ["a-0", "a-1", "d-0"]
    listed = [(row["position"], row["reason"]) for row in rejects(recipe)]
    assert listed == [(1, "no_document"), (2, "map_failed")]
    assert embedlake.embed(recipe).unchanged == 1


def test_records_left_out_by_choice_do_not_count_as_rejected(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", [RECORDS[0], *[RECORDS[1]] * 9])
    report = embedlake.embed(Recipe.load(write_recipe(tmp_path, "map_that_chooses")))
    assert (report.outcome, report.rejected) == ("done", 0)
    assert report.rejects == {"no_document": 9}


def test_function_that_returns_nothing_fails_the_run_and_never_empties_a_table(
    tmp_path: Path,
) -> None:
    write_jsonl(tmp_path, "a.jsonl", RECORDS)
    path = write_recipe(tmp_path, "map_that_forgets")
    module = tmp_path / "map_that_forgets.py"
    module.write_text(SOURCE.replace("return [", "[").replace('record["turns"]', "[]"))
    report = embedlake.embed(Recipe.load(path))
    assert report.outcome == "failed" and "4 no_document" in report.failures[0]
    module.write_text(SOURCE)
    embedlake.embed(Recipe.load(path))
    assert texts(Recipe.load(path)) == ["first", "second", "third"]
    module.write_text("def rows(record):\n    record.clear()\n")
    with pytest.raises(
        SetupError, match=r"4 rejected: no_document: source\.map .* gave no document"
    ):
        embedlake.embed(Recipe.load(path))
    assert texts(Recipe.load(path)) == ["first", "second", "third"]


def test_changed_source_makes_every_row_again_and_the_plan_says_why(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", RECORDS)
    path = write_recipe(tmp_path, "map_that_changes")
    embedlake.embed(Recipe.load(path))
    module = tmp_path / "map_that_changes.py"
    module.write_text(SOURCE.replace("text}", "text.upper()}"))
    (planned,) = embedlake.plan(Recipe.load(path)).files
    assert planned.why == "map or its source changed"
    embedlake.embed(Recipe.load(path))
    assert texts(Recipe.load(path)) == ["FIRST", "SECOND", "THIRD"]


def test_source_that_changes_during_a_run_stops_it(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", RECORDS)
    recipe = Recipe.load(write_recipe(tmp_path, "map_that_moves"))
    job, planned = begin(recipe)
    (unit,) = work_units(planned, 1)
    (tmp_path / "map_that_moves.py").write_text(SOURCE + "# another\n")
    with pytest.raises(SetupError, match=r"source\.map is not the one that was planned with"):
        chunk_unit(job, unit)


def test_missing_module_stops_before_the_source_is_looked_at(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, "map_that_is_gone")
    (tmp_path / "map_that_is_gone.py").unlink()
    with pytest.raises(UsageError, match=r"source\.map 'map_that_is_gone:rows' cannot be used"):
        planning.plan(Recipe.load(path))
    assert not (tmp_path / "lake").exists()


def test_folder_may_be_named_and_is_relative_to_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    path = write_recipe(tmp_path, "unused")
    section = {"function": "map_in_a_folder:rows", "folder": "code"}
    content = yaml.safe_load(path.read_text())
    content["source"]["map"] = section
    recipe = Recipe.load(content, base=tmp_path)
    assert recipe.source.map is not None and recipe.source.map.folder == str(tmp_path / "code")
    absolute = {"source": {"uri": "/src"}, "lake": {"uri": "/lake", "table": "docs"}}
    content |= {name: content[name] | values for name, values in absolute.items()}
    with pytest.raises(UsageError, match=r"source\.map\.folder: 'code' is relative"):
        Recipe.load(content)
    content["source"]["map"] = "json:loads"
    assert Recipe.load(content).source.map.folder is None  # type: ignore[union-attr]


@pytest.mark.parametrize("id_field", ["id", None])
def test_sliced_file_gives_what_the_whole_file_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, id_field: str | None
) -> None:
    monkeypatch.setattr(documents, "SMALLEST_SLICE_BYTES", 1)
    records = [{"id": n % 70, "turns": [f"{n} {word}" * 9 for word in "abc"[: n % 4]]}
               for n in range(120)]  # fmt: skip
    outcomes = []
    for name in ("whole", "sliced"):
        folder = tmp_path / name
        write_jsonl(folder, "a.jsonl", records)
        recipe = Recipe.load(write_recipe(folder, f"map_{name}_{id_field}", id=id_field))
        recipe = recipe.model_copy(update={"max_rejected_share": 1.0})
        if name == "whole":
            embedlake.embed(recipe, Resources(unit_bytes=10**9))
        else:
            run_sliced(recipe)
        reasons = [(row["doc_id"], row["position"], row["reason"]) for row in rejects(recipe)]
        outcomes.append((rows(recipe, "doc_id", "text"), sorted(reasons, key=str)))
    assert outcomes[0] == outcomes[1]
    assert ("duplicate_id" in str(outcomes[0])) is (id_field == "id")
