"""``export``, ``import`` and ``embed --then``: options, answers, exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from embedding_core.recipe import Recipe
from tests.driver import recipe_for, run, write_jsonl
from tests.embedlake.conftest import Embedlake


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """A table of ten rows."""
    write_jsonl(tmp_path, "a.jsonl", {f"d{n}": f"text number {n}" for n in range(10)})
    made = recipe_for(tmp_path)
    run(made)
    return made


def test_export_writes_what_it_is_asked_for(
    embedlake: Embedlake, recipe: Recipe, tmp_path: Path
) -> None:
    command = [
        "export", recipe.model_dump_json(), str(tmp_path / "out"), "--to", "jsonl", "--list",
        "--columns", "doc_id, text", "--columns", "vector", "--dtype", "float16", "--json",
        "--rename", "doc_id=prompt_id,vector=embedding", "--where", "doc_id < 'd3'",
    ]  # fmt: skip
    done = embedlake(*command)
    assert (done.code, done.json["rows"], done.json["shards_written"]) == (0, 3, 1)
    lines = (tmp_path / "out" / "data" / "part-00000.jsonl").read_text().splitlines()
    assert [list(json.loads(line)) for line in lines] == [["prompt_id", "text", "embedding"]] * 3
    again = embedlake(*command)
    assert again.code == 2 and "--overwrite" in again.err and "--resume" in again.err
    assert embedlake(*command, "--overwrite").code == 0
    assert embedlake(*command, "--resume").json["shards_written"] == 0


def test_import_makes_a_table_of_an_export(
    embedlake: Embedlake, recipe: Recipe, tmp_path: Path
) -> None:
    out = str(tmp_path / "out")
    embedlake("export", recipe.model_dump_json(), out, "--to", "npy", "--rename", "text=body")
    lake = recipe.lake.model_copy(update={"uri": str(tmp_path / "copy")})
    copy = recipe.model_copy(update={"lake": lake}).model_dump_json()
    file = f"{out}/data/part-00000.npy"
    wrong = embedlake("import", file, copy, "--sample", "0")
    assert wrong.code == 2 and "text=<name>" in wrong.err
    done = embedlake("import", file, copy, "--rename", "text=body", "--from", "npy", "--json")
    assert (done.code, done.json["rows"], done.json["checked_rows"]) == (0, 10, 10)
    again = embedlake("import", out, copy, "--normalize")
    assert again.code == 1 and "has 10 rows" in again.err


def test_embed_then_exports_the_table_over_the_export_before(
    embedlake: Embedlake, recipe: Recipe, tmp_path: Path
) -> None:
    then = f"export={tmp_path / 'my out'!s}".replace("my out", "'my out'")
    command = ["embed", recipe.model_dump_json(), "--json", "--then"]
    for _ in range(2):
        done = embedlake(*command, f"{then} --to parquet --columns doc_id,vector")
        assert (done.code, done.json["export"]["rows"]) == (0, 10)
    assert (tmp_path / "my out" / "manifest.json").exists()


@pytest.mark.parametrize(
    ("then", "why"),
    [
        ("publish=x", "'publish' is no step"),
        ("export", "not NAME=VALUE"),
        ("export=out", "Missing option '--to'"),
        ("export=out --to csv", "csv"),
        ("export=out --to npy --nope", "--nope"),
        ("export='out --to npy", "No closing quotation"),
    ],
)
def test_embed_then_something_else_is_refused_before_the_run(
    embedlake: Embedlake, tmp_path: Path, then: str, why: str
) -> None:
    recipe = recipe_for(tmp_path)
    refused = embedlake("embed", recipe.model_dump_json(), "--then", then)
    assert refused.code == 2 and why in refused.err
    assert not (tmp_path / "lake").exists()
