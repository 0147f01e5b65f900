"""The evaluate flow: the command's figures as an artifact, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from embedding_core.errors import LakeError, UsageError
from embedding_core.recipe import Recipe
from embedlake.cli.options import run_flow
from embedlake.orchestration.naming import artifact_key
from tests.driver import run, write_jsonl
from tests.e2e.conftest import Commands
from tests.e2e.recipes import write_recipe

pytestmark = pytest.mark.e2e

FLOW = "embedlake.flows.evaluate:evaluate"


def test_evaluate_deployment_keeps_the_figures_and_the_flow_refuses_as_the_command_does(
    commands: Commands, tmp_path: Path
) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"cat": "a sleeping cat", "tax": "taxes rise again"})
    queries, qrels = tmp_path / "queries.jsonl", tmp_path / "qrels.tsv"
    queries.write_text(json.dumps({"_id": "q1", "text": "sleeping cat"}) + "\n")
    qrels.write_text("query-id\tcorpus-id\tscore\nq1\tcat\t1\n")
    release = {"queries": str(queries), "qrels": str(qrels)}
    path = write_recipe(tmp_path, name="judged", release=release)
    recipe = Recipe.load(path)
    run(recipe)
    path.with_suffix(".deploy.yaml").write_text("deployments: {evaluate: {tags: [weekly]}}\n")
    deployed = commands.run("embedlake", "deploy", str(path))
    assert deployed.code == 0, deployed.err
    ended = commands.run("prefect", "deployment", "run", "evaluate/judged", "--watch")
    assert ended.code == 0, ended.out + ended.err
    artifacts = {
        artifact["key"]: artifact for artifact in commands.api("/artifacts/latest/filter", {})
    }
    page = artifacts[artifact_key("evaluate-report", recipe)]["data"]
    assert "# Evaluation of vector" in page and "| ndcg@10 | 1.0000 |" in page
    (flow_run,) = commands.api(
        "/flow_runs/filter", {"flow_runs": {"tags": {"all_": ["weekly", "recipe:judged"]}}}
    )
    assert flow_run["state"]["type"] == "COMPLETED" and "table:docs" in flow_run["tags"]

    with temporary_settings({PREFECT_API_URL: commands.api_url}):
        with pytest.raises(LakeError, match="vector__none"):
            run_flow(FLOW, str(path), None, None, "vector__none")
        with pytest.raises(UsageError, match=r"no queries file at /none\.jsonl"):
            run_flow(FLOW, str(path), "/none.jsonl")
