"""The report by the flow: the page beside the table, its artifacts, and the link of other runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedding_core.recipe import Recipe
from embedlake.orchestration.naming import artifact_key
from tests.driver import write_jsonl
from tests.e2e.conftest import DONE, FAILED, Commands
from tests.e2e.recipes import write_recipe
from tests.look.tables import documents

pytestmark = pytest.mark.e2e


def test_report_flow_keeps_page_figures_and_pictures(commands: Commands, tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", documents(20))
    path = write_recipe(tmp_path, source={"metadata": {"lang": "string"}})
    recipe = Recipe.load(path)
    embedded = commands.run("embedlake", "embed", str(path))
    assert embedded.code == DONE, embedded.err

    out = tmp_path / "report.html"
    made = commands.run("embedlake", "report", str(path), "-o", str(out), "--json")
    assert made.code == DONE, made.err
    assert made.json["page"] == str(out) and out.read_text().startswith("<!doctype html>")

    deployed = commands.run(
        "prefect", "--no-prompt", "deploy", "--prefect-file", "deployments/prefect.yaml",
        "--name", "report",
    )  # fmt: skip
    assert deployed.code == 0, deployed.out + deployed.err
    ended = commands.run(
        "prefect", "deployment", "run", "report/report", "--watch", "--param", f"recipe={path}",
        "--param", "color=lang",
    )  # fmt: skip
    assert ended.code == 0, ended.out + ended.err
    assert (tmp_path / "lake" / "_embedlake" / "docs" / "report.html").exists()

    artifacts = {
        artifact["key"]: artifact for artifact in commands.api("/artifacts/latest/filter", {})
    }
    report = artifacts[artifact_key("report", recipe)]["data"]
    for heading in ("# Report of e2e", "## Left out", "## Runs", "## Explained variance"):
        assert heading in report
    picture = artifacts[artifact_key("report-picture", recipe)]["data"]
    assert picture.startswith("data:image/png;base64,")
    link = f"(/artifacts/key/{artifact_key('report', recipe)})"
    assert link in artifacts[artifact_key("embed-report", recipe)]["data"]
    assert link not in report


def test_report_flow_without_a_table_fails_with_what_to_do(
    commands: Commands, tmp_path: Path
) -> None:
    path = write_recipe(tmp_path)
    failed = commands.run("embedlake", "report", str(path), "-o", str(tmp_path / "report.html"))
    assert failed.code == FAILED and "there is no table" in failed.err
    assert not (tmp_path / "report.html").exists()
