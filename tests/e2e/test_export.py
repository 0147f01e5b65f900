"""Exports by the flow: shards on Ray, the deployment, and the same bytes as in this process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from embedding_core.exports.spec import ExportSpec
from embedding_core.recipe import Recipe
from embedding_core.runs.exchange.exporting import export
from embedlake.orchestration.naming import artifact_key
from tests.driver import run, write_jsonl
from tests.e2e.conftest import DONE, FAILED, Commands
from tests.e2e.recipes import write_recipe

pytestmark = pytest.mark.e2e


def test_export_on_ray_has_the_bytes_of_an_export_in_this_process(
    commands: Commands, tmp_path: Path
) -> None:
    write_jsonl(tmp_path, "a.jsonl", {f"d{n}": f"text number {n}" for n in range(40)})
    path = write_recipe(tmp_path)
    recipe = Recipe.load(path)
    run(recipe)
    here = export(recipe, ExportSpec(to="npy", shard_rows=9), str(tmp_path / "here"))

    on_ray = commands.run(
        "embedlake", "export", str(path), str(tmp_path / "ray"), "--to", "npy", "--shard-rows",
        "9", "--json", EMBEDLAKE_RAY_ADDRESS="local",
    )  # fmt: skip
    assert on_ray.code == DONE, on_ray.err
    assert "starting Ray" in on_ray.err
    assert on_ray.json["manifest_sha256"] == here.manifest_sha256
    assert on_ray.json["shards_written"] == 5
    again = commands.run("embedlake", "export", str(path), str(tmp_path / "ray"), "--to", "npy")
    assert again.code != DONE and "--resume" in again.err
    keys = {artifact["key"] for artifact in commands.api("/artifacts/latest/filter", {})}
    assert artifact_key("export-report", recipe) in keys

    deployed = commands.run(
        "prefect", "--no-prompt", "deploy", "--prefect-file", "deployments/prefect.yaml",
        "--name", "export",
    )  # fmt: skip
    assert deployed.code == 0, deployed.out + deployed.err
    ended = commands.run(
        "prefect", "deployment", "run", "export/export", "--watch", "--param", f"recipe={path}",
        "--param", f"destination={tmp_path / 'deployed'}",
    )  # fmt: skip
    assert ended.code == 0, ended.out + ended.err
    manifest = json.loads((tmp_path / "deployed" / "manifest.json").read_bytes())
    assert (manifest["rows"], manifest["spec"]["to"]) == (40, "parquet")


def test_export_that_fails_in_a_shard_says_how_to_go_on(commands: Commands, tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", {f"d{n}": f"text number {n}" for n in range(4)})
    path = write_recipe(tmp_path)
    run(Recipe.load(path))
    out = tmp_path / "out"
    out.mkdir()
    (out / "_export").mkdir()
    (out / "_export" / "begun.json").write_text("{}")
    failed = commands.run("embedlake", "export", str(path), str(out), "--to", "arrow", "--resume")
    assert failed.code == FAILED and "--overwrite" in failed.err
