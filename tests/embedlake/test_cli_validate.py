"""`embedlake validate`: one file of the source beside its rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from embedding_core.lake import ledger
from embedding_core.lake.lock import locked
from embedding_core.lake.table import table_of
from embedding_core.reasons import NON_FINITE
from embedding_core.recipe import Recipe
from embedding_core.records import Reject
from tests.driver import run, write_jsonl
from tests.e2e.recipes import write_recipe
from tests.embedlake.conftest import Answer, Embedlake

LONG = " ".join(f"word{n}" for n in range(70))
RECORDS = [
    {"id": "cat", "text": "the cat sleeps on the sofa", "year": 2020},
    {"id": "long", "text": LONG, "year": 2021},
    {"id": "none", "year": 2022},
]


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe over two files, embedded."""
    write_jsonl(tmp_path, "a.jsonl", RECORDS)
    write_jsonl(tmp_path, "b.jsonl", {"dog": "the dog barks"})
    path = write_recipe(tmp_path, source={"metadata": {"year": "int"}})
    run(Recipe.load(path))
    return path


def checked(embedlake: Embedlake, recipe: Path, *arguments: str) -> Answer:
    """The answer for a file that differs from its rows."""
    answer = embedlake("validate", str(recipe), *arguments, "--json")
    assert (answer.code, answer.json["exit_code"]) == (1, 1)
    return answer


def kinds(answer: Answer) -> dict[str, int]:
    return {kind: answer.json[kind] for kind in ("missing", "extra", "different")}


def test_validate_embedded_file_has_its_rows(recipe: Path, embedlake: Embedlake) -> None:
    answer = embedlake("validate", str(recipe), "a.jsonl")
    assert answer.code == 0
    assert "src/a.jsonl: 4 rows, as the file gives them now" in answer.out
    assert "  file:  2 documents, 4 chunks, 76 tokens, rejects: 1 missing_field\n" in answer.out
    assert "  table: 2 documents, 4 chunks, 76 tokens, rejects: 1 missing_field (" in answer.out
    data = embedlake("validate", str(recipe), "a.jsonl", "--json").json
    assert (data["next_step"], data["why"], data["differences"]) == ("none", [], [])
    version = table_of(Recipe.load(recipe)).dataset().version
    assert data["version"] == version  # nothing was written


def test_validate_changed_file_names_missing_extra_and_different_rows(
    tmp_path: Path, recipe: Path, embedlake: Embedlake
) -> None:
    changed = [
        {"id": "cat", "text": "the cat sleeps on the sofa", "year": 1999},
        {"id": "new", "text": "a new text", "year": 2020},
    ]
    write_jsonl(tmp_path, "a.jsonl", changed)
    answer = checked(embedlake, recipe, "a.jsonl")
    assert kinds(answer) == {"missing": 1, "extra": 3, "different": 1}
    assert (answer.json["why"], answer.json["next_step"]) == (["content changed"], "embed")
    listed = [
        (entry["kind"], entry["doc_id"], entry["chunk_index"], entry["columns"])
        for entry in answer.json["differences"]
    ]
    assert listed[:2] == [("different", "cat", 0, ["year"]), ("missing", "new", 0, [])]
    assert listed[2:] == [("extra", "long", number, []) for number in range(3)]
    said = embedlake("validate", str(recipe), "a.jsonl", "--limit", "1").out
    assert "  ~ different: document 'cat', chunk 0 (" in said and "): year\n" in said
    assert "… and 4 more differences" in said
    assert said.splitlines()[-1] == "next: run `embedlake embed RECIPE`"
    run(Recipe.load(recipe))
    assert embedlake("validate", str(recipe), "a.jsonl").code == 0


def test_validate_other_rules_say_which(tmp_path: Path, recipe: Path, embedlake: Embedlake) -> None:
    write_recipe(tmp_path, source={"metadata": {"year": "int"}}, chunk={"max_tokens": 16})
    answer = checked(embedlake, recipe, "a.jsonl")
    assert answer.json["why"] == ["chunking changed"]
    assert answer.json["different"] == 3 and answer.json["missing"] > 0
    assert {"char_end", "n_tokens", "text_hash", "chunk_id"} <= set(
        answer.json["differences"][0]["columns"]
    )


def test_validate_new_file_is_missing(tmp_path: Path, recipe: Path, embedlake: Embedlake) -> None:
    write_jsonl(tmp_path, "c.jsonl", {"owl": "the owl hoots"})
    answer = checked(embedlake, recipe, "c.jsonl")
    assert kinds(answer) == {"missing": 1, "extra": 0, "different": 0}
    assert (answer.json["why"], answer.json["next_step"]) == (["new file"], "embed")


def test_validate_copy_of_another_file_is_not_taken_for_a_move(
    tmp_path: Path, recipe: Path, embedlake: Embedlake
) -> None:
    write_jsonl(tmp_path, "c.jsonl", {"dog": "the dog barks"})
    assert checked(embedlake, recipe, "c.jsonl").json["why"] == ["new file"]


def test_validate_file_that_left_the_source(
    tmp_path: Path, recipe: Path, embedlake: Embedlake
) -> None:
    (tmp_path / "src" / "b.jsonl").unlink()
    answer = checked(embedlake, recipe, "b.jsonl")
    assert kinds(answer) == {"missing": 0, "extra": 1, "different": 0}
    assert (answer.json["why"], answer.json["next_step"]) == (["it left the source"], "embed")


def test_validate_rejected_file_says_why(
    tmp_path: Path, recipe: Path, embedlake: Embedlake
) -> None:
    (tmp_path / "src" / "c.jsonl").write_bytes(b"\x1f\x8b\x08 no gzip")
    run(Recipe.load(recipe))
    answer = embedlake("validate", str(recipe), "c.jsonl", "--json")
    assert answer.code == 0  # neither side has a row
    (why,) = answer.json["why"]
    assert why.startswith("the file is rejected as a whole: corrupt_compressed")
    assert answer.json["in_table"]["rejects"] == answer.json["expected"]["rejects"]
    (tmp_path / "src" / "b.jsonl").write_bytes(b"\x1f\x8b\x08 no gzip")
    was_good = checked(embedlake, recipe, "b.jsonl")
    assert kinds(was_good) == {"missing": 0, "extra": 1, "different": 0}
    assert any("rejected as a whole" in why for why in was_good.json["why"])


def test_validate_row_deleted_by_hand_is_found(recipe: Path, embedlake: Embedlake) -> None:
    table = table_of(Recipe.load(recipe))
    table.dataset().delete("doc_id = 'long' AND chunk_index = 1")
    answer = checked(embedlake, recipe, "a.jsonl")
    assert kinds(answer) == {"missing": 1, "extra": 0, "different": 0}
    assert "the table has 3 of its 4 rows: changed by hand" in answer.json["why"]
    assert answer.json["next_step"] == "embed"


def test_validate_value_changed_by_hand_asks_for_a_repair(
    recipe: Path, embedlake: Embedlake
) -> None:
    table_of(Recipe.load(recipe)).dataset().update({"year": "1900"}, "doc_id = 'cat'")
    answer = checked(embedlake, recipe, "a.jsonl")
    assert kinds(answer) == {"missing": 0, "extra": 0, "different": 1}
    assert (answer.json["why"], answer.json["next_step"]) == ([], "verify")
    assert "--deep --repair" in embedlake("validate", str(recipe), "a.jsonl").out


def test_validate_chunk_without_a_vector_is_missing_and_rejected(
    recipe: Path, embedlake: Embedlake
) -> None:
    table = table_of(Recipe.load(recipe))
    table.dataset().delete("doc_id = 'cat'")
    uri = str(recipe.parent / "src" / "a.jsonl")
    ledger.add_rejects(table, [Reject(uri, "cat", 0, NON_FINITE.name, "no vector")], "run")
    answer = checked(embedlake, recipe, "a.jsonl")
    (missing,) = answer.json["differences"]
    assert missing["why"] == "rejected: non_finite_vector"
    assert "chunks were rejected: non_finite_vector" in answer.json["why"]


@pytest.mark.parametrize(
    "choice",
    [
        {"sample": {"rows": 1, "seed": 3}},
        {"sample": {"rows": 1, "per": "year", "top": True}},
        {"deduplicate": True},
        {"limit": 1},
    ],
    ids=str,
)
def test_validate_counts_the_documents_that_the_recipe_chooses(
    choice: dict[str, Any], tmp_path: Path, embedlake: Embedlake
) -> None:
    write_jsonl(tmp_path, "a.jsonl", RECORDS)
    write_jsonl(tmp_path, "b.jsonl", {"dog": "the dog barks", "copy": RECORDS[0]["text"]})
    source: dict[str, Any] = {"metadata": {"year": "int"}}
    recipe = write_recipe(tmp_path, source=source | choice)
    report = run(Recipe.load(recipe))
    checks = [embedlake("validate", str(recipe), f"{name}.jsonl", "--json") for name in "ab"]
    assert [(check.code, check.json["next_step"]) for check in checks] == [(0, "none")] * 2
    assert sum(check.json["expected"]["documents"] for check in checks) == report.documents
    write_recipe(tmp_path, source=source | {"sample": {"rows": 3, "seed": 3}})
    unsurveyed = embedlake("validate", str(recipe), "a.jsonl", "--json").json
    assert unsurveyed["expected"]["documents"] == 2
    assert unsurveyed["why"] == ["its documents are to be chosen"]


def test_validate_while_a_run_works_on_the_table_says_to_wait(
    tmp_path: Path, recipe: Path, embedlake: Embedlake
) -> None:
    write_jsonl(tmp_path, "c.jsonl", {"owl": "the owl hoots"})
    with locked(table_of(Recipe.load(recipe)), "run abc", 0):
        answer = checked(embedlake, recipe, "c.jsonl")
        assert embedlake("validate", str(recipe), "a.jsonl").code == 0
    assert answer.json["next_step"] == "wait"
    assert any("a run is working on the table, or died: run abc" in w for w in answer.json["why"])
    assert checked(embedlake, recipe, "c.jsonl").json["next_step"] == "embed"


def test_validate_unknown_file_and_missing_table(tmp_path: Path, embedlake: Embedlake) -> None:
    write_jsonl(tmp_path, "a.jsonl", RECORDS)
    recipe = write_recipe(tmp_path)
    missing = embedlake("validate", str(recipe), "a.jsonl", "--json")
    assert (missing.code, missing.json["kind"]) == (1, "LakeError")
    run(Recipe.load(recipe))
    unknown = embedlake("validate", str(recipe), "nowhere.jsonl", "--json")
    assert (unknown.code, unknown.json["kind"]) == (2, "UsageError")
    assert "neither a file of" in json.dumps(unknown.json)
