"""The gate's report in words and as a picture."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from embedding_core.quality.judgement import GateReport
from embedding_core.recipe import ModelSpec, Resources
from embedding_core.reports.gate import GateView
from embedding_core.reports.picture import picture_uri, write_picture
from embedding_core.runs.space.build import build_space
from embedding_core.runs.space.release_gate import gate
from tests.driver import recipe_for, run, write_jsonl

pytestmark = pytest.mark.slow

TEXTS = {f"d{n}": f"document {n} has the number {n * 7919}. And more of it." for n in range(20)}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> GateReport:
    """Of a table without labelled queries."""
    folder = tmp_path_factory.mktemp("gate")
    write_jsonl(folder, "a.jsonl", TEXTS)
    recipe = recipe_for(folder, model={"dim": 256}, release={"max_ndcg_drop": 1})
    run(recipe)
    column = build_space(recipe, ModelSpec(name="hashing", dim=128), Resources(), "build").column
    return gate(recipe, Resources(), column)


def test_lines_and_markdown_say_every_finding_metric_and_what_the_queries_are(
    report: GateReport,
) -> None:
    page = re.sub(r"\\(.)", r"\1", GateView(report).markdown())  # as it is shown
    for said in ("\n".join(GateView(report).lines()), page):
        assert all(finding.sentence in said for finding in report.findings)
        assert all(name in said for name in report.metrics)
        assert "20 self-made known-item queries over 20 rows" in said
        assert report.new.column in said and "256 dimensions" in said


def test_sentence_with_a_bar_stays_in_its_cell(report: GateReport) -> None:
    finding = replace(report.findings[0], sentence="a | b <c>")
    page = GateView(replace(report, findings=(finding,))).markdown()
    assert page.rstrip().endswith(rf"| {finding.name} | a \| b \<c\> |")


def test_sample_is_called_one(report: GateReport) -> None:
    sample = replace(report, sampled_share=0.125)
    assert "a sample of 12.50% of the table" in "\n".join(GateView(sample).lines())


def test_summary_is_one_line_with_the_verdict(report: GateReport) -> None:
    summary = GateView(report).summary()
    assert summary.startswith("yes: hashing") and "\n" not in summary


def test_picture_is_svg_in_a_file_and_as_uri(report: GateReport, tmp_path: Path) -> None:
    write_picture(report, tmp_path / "gate.svg")
    written = (tmp_path / "gate.svg").read_text()
    kind, _, data = picture_uri(report).partition(",")
    assert kind == "data:image/svg+xml;base64"
    for drawn in (written, base64.b64decode(data).decode()):
        words = "".join(ElementTree.fromstring(drawn).itertext())
        assert all(name in words for name in (*report.metrics, "limit", "new - old, 95 %"))


def test_picture_of_a_space_that_finds_nothing_is_drawn(report: GateReport) -> None:
    assert picture_uri(replace(report, drift=None))
