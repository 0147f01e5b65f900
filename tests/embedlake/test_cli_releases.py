"""Spaces judged and switched by hand: ``gate``, ``promote``, ``rollback``, ``retire``."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from embedding_core import Encoder
from embedding_core.lake import schema
from embedding_core.lake.spaces.filling import PlacedVectors, fill_fragment
from embedding_core.lake.table import table_of
from embedding_core.recipe import ModelSpec, Recipe, Resources
from embedding_core.runs.space.build import begin_space, build_space
from tests.driver import run, write_jsonl
from tests.e2e.recipes import write_recipe
from tests.embedlake.conftest import Embedlake

pytestmark = pytest.mark.slow

DONE, FAILED, BAD_USAGE, REFUSED = 0, 1, 2, 4
NEW = ModelSpec(name="hashing", dim=16)


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    """A recipe over two embedded documents."""
    write_jsonl(tmp_path, "a.jsonl", {"cat": "the cat sleeps", "tax": "taxes rose again"})
    path = write_recipe(tmp_path)
    assert run(Recipe.load(path)).outcome == "done"
    return str(path)


def build(recipe: str, dim: int = 16) -> str:
    model = ModelSpec(name="hashing", dim=dim)
    return build_space(Recipe.load(recipe), model, Resources(), "build").column


def test_release_by_hand_from_promote_to_retire(embedlake: Embedlake, recipe: str) -> None:
    column = build(recipe)
    promoted = embedlake("promote", recipe, column, "--json")
    assert (promoted.code, promoted.json["action"]) == (DONE, "promote")
    assert promoted.json["by"] and promoted.json["at"] and promoted.json["run_id"] is None
    back = embedlake("rollback", recipe)
    assert back.code == DONE and "rollback: " in back.out and " in place of " in back.out
    assert embedlake("retire", recipe, column).code == DONE
    status = embedlake("status", recipe)
    assert "space retired: " in status.out
    listed = embedlake("releases", recipe, "--json").json["releases"]
    assert [release["action"] for release in listed] == ["retire", "rollback", "promote"]
    assert listed[2] == promoted.json
    assert len(embedlake("releases", recipe).out.splitlines()) == 3


def test_releases_of_a_table_without_any_says_so(embedlake: Embedlake, recipe: str) -> None:
    assert embedlake("releases", recipe).out == "no space was ever switched or refused\n"


def test_status_lists_every_space_with_what_is_filled(embedlake: Embedlake, recipe: str) -> None:
    loaded = Recipe.load(recipe)
    begin_space(loaded, NEW, Resources(), "build")
    serving, building = embedlake("status", recipe, "--json").json["spaces"]
    assert (serving["column"], serving["state"]) == ("vector", "in service")
    assert (building["state"], building["filled_share"], building["dim"]) == ("building", 0.0, 16)
    assert f"0.0% of the rows in column {building['column']}" in embedlake("status", recipe).out
    embedlake("promote", recipe, build(recipe))
    assert "space previous: " in embedlake("status", recipe).out


def test_promote_half_filled_column_fails_and_changes_nothing(
    embedlake: Embedlake, recipe: str
) -> None:
    begin_space(Recipe.load(recipe), NEW, Resources(), "build")
    column = embedlake("status", recipe, "--json").json["spaces"][1]["column"]
    answer = embedlake("promote", recipe, column)
    assert answer.code == FAILED and "2 of 2 rows" in answer.err
    assert embedlake("releases", recipe, "--json").json == {"releases": []}


@pytest.mark.parametrize("options", [(), ("--now",)])
def test_rollback_rows_that_came_since_are_found_afterwards(
    embedlake: Embedlake, recipe: str, tmp_path: Path, options: tuple[str, ...]
) -> None:
    embedlake("promote", recipe, build(recipe))
    newer = Recipe.load(recipe).model_copy(update={"model": NEW})
    write_jsonl(tmp_path, "b.jsonl", {"dog": "the dog barks"})
    assert run(newer).outcome == "done"
    assert embedlake("rollback", recipe, *options).code == DONE
    hits = embedlake("search", recipe, "cat", "--json").json["hits"]
    assert {hit["doc_id"] for hit in hits} == {"cat", "tax", "dog"}
    serving = embedlake("status", recipe, "--json").json["spaces"][0]
    assert (serving["dim"], serving["missing_rows"]) == (32, 0)


@pytest.mark.parametrize("command", ["promote", "retire"])
def test_column_in_service_or_unknown_fails(
    embedlake: Embedlake, recipe: str, command: str
) -> None:
    assert "is in service" in embedlake(command, recipe, "vector").err
    answer = embedlake(command, recipe, "vector__none")
    assert answer.code == FAILED and "no column 'vector__none'" in answer.err


def test_rollback_with_nothing_to_go_back_to_fails(embedlake: Embedlake, recipe: str) -> None:
    answer = embedlake("rollback", recipe)
    assert answer.code == FAILED and "nothing to go back to" in answer.err


def test_promote_without_a_table_or_column_says_what_to_do(
    embedlake: Embedlake, tmp_path: Path
) -> None:
    path = str(write_recipe(tmp_path))
    assert "embedlake embed" in embedlake("promote", path, "vector__x").err
    assert embedlake("promote", path).code == BAD_USAGE


# The gate


TEXTS = {
    "cat": "the grey cat sleeps on the warm kitchen chair. It dreams of fish.",
    "tax": "income taxes rose again this spring. Nobody was surprised by that.",
    "sea": "waves roll slowly against the old harbour. Boats knock together.",
}


@pytest.fixture
def judged(tmp_path: Path) -> str:
    """A recipe over three embedded documents, with labelled queries."""
    write_jsonl(tmp_path, "a.jsonl", TEXTS)
    (tmp_path / "queries.jsonl").write_text('{"_id": "q", "text": "dreams of fish"}\n')
    (tmp_path / "qrels.tsv").write_text("query\tdocument\tgrade\nq\tcat\t1\n")
    release = {"queries": "queries.jsonl", "qrels": "qrels.tsv"}
    path = write_recipe(tmp_path, model={"dim": 256}, release=release)
    assert run(Recipe.load(path)).outcome == "done"
    return str(path)


def ruined(recipe: str) -> str:
    """A column in which every text has the vector of another."""
    model = ModelSpec(name="hashing", dim=128)
    job = begin_space(Recipe.load(recipe), model, Resources(), "ruin")
    table = table_of(job.recipe)
    (fragment,) = table.dataset().get_fragments()
    right = Encoder.load("hashing", dim=128).encode_documents(list(TEXTS.values()))
    wrong = PlacedVectors(np.arange(len(TEXTS)), np.roll(right, 1, axis=0))
    fill_fragment(table, job.space_id, fragment.fragment_id, [wrong])
    return schema.hidden_name(job.space_id)


def test_gate_good_column_ends_with_0_and_a_picture(
    embedlake: Embedlake, judged: str, tmp_path: Path
) -> None:
    column = build(judged, 128)
    picture = tmp_path / "gate.svg"
    answer = embedlake("gate", judged, column, "--json", "--picture", str(picture))
    assert (answer.code, answer.json["verdict"], answer.json["exit_code"]) == (DONE, "yes", DONE)
    assert (answer.json["queries_kind"], answer.json["queries"]) == ("labelled", 1)
    assert answer.json["metrics"]["ndcg@10"]["difference"] == {"mean": 0, "low": 0, "high": 0}
    assert ElementTree.parse(picture).getroot().tag.endswith("svg")
    said = embedlake("gate", judged, column)
    assert said.code == DONE and said.out.startswith("verdict: YES\n") and "ndcg@10" in said.out


def test_gate_ruined_column_ends_with_4_and_says_why(embedlake: Embedlake, judged: str) -> None:
    column = ruined(judged)
    answer = embedlake("gate", judged, column)
    assert answer.code == REFUSED and "verdict: NO" in answer.out
    assert "NO  ndcg@10: " in answer.out
    refused = embedlake("gate", judged, column, "--json")
    assert (refused.code, refused.json["exit_code"], refused.json["verdict"]) == (4, 4, "no")
    assert "failed: ndcg@10" in refused.json["summary"]


def test_gate_bad_usage_ends_with_2(embedlake: Embedlake, judged: str, tmp_path: Path) -> None:
    column = build(judged, 128)
    assert embedlake("gate", judged).code == BAD_USAGE
    in_service = embedlake("gate", judged, "vector")
    assert in_service.code == BAD_USAGE and "in service" in in_service.err
    nowhere = embedlake("gate", judged, column, "--picture", str(tmp_path / "none" / "x.svg"))
    assert nowhere.code == BAD_USAGE and "no folder" in nowhere.err
    (tmp_path / "queries.jsonl").write_text("\n")
    empty = embedlake("gate", judged, column)
    assert empty.code == BAD_USAGE and "holds no queries" in empty.err


def test_gate_half_filled_or_unknown_column_fails(embedlake: Embedlake, judged: str) -> None:
    begin_space(Recipe.load(judged), NEW, Resources(), "build")
    column = embedlake("status", judged, "--json").json["spaces"][1]["column"]
    half = embedlake("gate", judged, column)
    assert (
        half.code == FAILED
        and f"3 of 3 rows of table 'docs' have no vector in {column}" in half.err
    )
    assert "no column 'vector__none'" in embedlake("gate", judged, "vector__none").err
