"""The documentation says everything there is, and what it shows works."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from pathlib import Path
from typing import Any
from uuid import UUID

import click
import pytest
import yaml

from embedding_core import reasons
from embedding_core.encoder.checkpoint.treatments.rule import Rule
from embedding_core.encoder.checkpoint.treatments.tables import TABLES
from embedding_core.lake.query.hits import Hit
from embedding_core.lake.spaces.switching import GateAnswer, Release
from embedding_core.lake.spaces.vector_columns import VectorColumn
from embedding_core.lake.upkeep.compaction import TableReport, TableState
from embedding_core.lake.upkeep.row_audit import Damage
from embedding_core.quality import Ann, Comparison, Drift, Finding, Health, Threshold
from embedding_core.quality.bridge import BridgeQuality
from embedding_core.quality.judgement import GateReport, JudgedSpace
from embedding_core.reasons import Reason
from embedding_core.recipe import Recipe, Resources
from embedding_core.records import Plan
from embedding_core.runs.answers import Answer
from embedding_core.runs.embed.finish_stage import RunReport
from embedding_core.runs.exchange.exporting import ExportReport
from embedding_core.runs.exchange.feedback_export import FeedbackReport
from embedding_core.runs.exchange.importing import ImportReport
from embedding_core.runs.inputs.checking import Counted, FileCheck, RowDifference
from embedding_core.runs.inputs.drafting import Draft
from embedding_core.runs.inputs.lengths import Bin, LengthSummary
from embedding_core.runs.inputs.peeking import Peek, PeekedChunk, PeekedRecord
from embedding_core.runs.inputs.tallies import Figures, Statistics
from embedding_core.runs.look.history import RunWork
from embedding_core.runs.look.overview import Overview
from embedding_core.runs.look.placed_rows import MapReport
from embedding_core.runs.look.vector_figures import AlikePair, ComponentFigures, Excerpt
from embedding_core.runs.maintenance import MaintenanceReport
from embedding_core.runs.repair import AuditReport
from embedding_core.runs.space.build import SpaceReport
from embedding_core.runs.space.evaluation import Evaluation
from embedding_core.runs.space.release import ReembedReport
from embedding_core.runs.table_status import FileLine, RejectLine, Status
from embedlake.cli.main import cli
from embedlake.deploying.deploy_file import DeployFile
from embedlake.deploying.desired import desired_items
from embedlake.deploying.pools import template_of
from embedlake.orchestration.events import Announcement
from embedlake.settings import Settings
from tests.driver import run, write_jsonl
from tools import pages

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
ARTICLES = [
    {"id": "leaf", "title": "Leaves", "text": "Leaves turn light into sugar.", "year": 2021},
    {"id": "bank", "title": "Banks", "text": "Interest rates rose again.", "year": 2022},
    {"id": "lost", "title": "Rejected: its text is missing", "year": 2022},
]


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text()


def blocks(text: str, language: str) -> list[str]:
    """Code blocks of a page marked with a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


# The command line


def section_of(command: str) -> str:
    """The part of cli.md under a command's heading."""
    parts = re.split(r"^## ", page("cli.md"), flags=re.MULTILINE)
    found = [part for part in parts if re.match(rf"`embedlake {command}[ `]", part)]
    assert found, f"docs/cli.md has no heading for `embedlake {command}`"
    return found[0]


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_cli_page_has_each_command_with_its_arguments_and_its_json(name: str) -> None:
    section = section_of(name)
    for parameter in cli.commands[name].params:
        if isinstance(parameter, click.Argument):
            assert str(parameter.human_readable_name).upper() in section
    assert "--json" in section and "JSON" in section


@pytest.mark.parametrize("name", pages.PAGES)
def test_tables_of_options_and_fields_are_as_the_code_has_them(name: str) -> None:
    assert pages.PAGES[name](page(name)) == page(name)


def test_tables_keep_their_words_and_get_rows_names_and_defaults_of_the_code() -> None:
    stale = page("cli.md").replace("| `--limit N` | `20` |", "| `--limti` | `7` |")
    made = pages.command_page(stale)
    assert "--limti" not in made and "| `--limit N` | `20` | differences to list at most |" in made
    lost = re.sub(r"\| `lake.table` \|.*\n", "", page("recipes.md"))
    row = "| `lake.table` | required |"
    assert row in pages.recipe_page(lost) and row not in lost
    recall = "| `index.target_recall` |"
    changed = page("recipes.md").replace(f"{recall} 0.95 |", f"{recall} 1 |")
    assert pages.recipe_page(changed) == page("recipes.md")


def test_cli_page_has_no_command_that_does_not_exist() -> None:
    named = re.findall(r"^## `embedlake ([a-z-]+)", page("cli.md"), re.MULTILINE)
    assert set(named) == set(cli.commands)


@pytest.mark.parametrize(
    ("command", "record"),
    [
        ("plan", Plan),
        ("embed", RunReport),
        ("status", Status),
        ("maintain", MaintenanceReport),
        ("maintain", TableReport),
        ("maintain", TableState),
        ("search", Answer),
        ("search", Hit),
        ("status", FileLine),
        ("status", RejectLine),
        ("evaluate", Evaluation),
        ("reembed", ReembedReport),
        ("reembed", SpaceReport),
        ("gate", GateReport),
        ("gate", JudgedSpace),
        ("gate", Comparison),
        ("gate", Drift),
        ("gate", Threshold),
        ("gate", Health),
        ("gate", BridgeQuality),
        ("gate", Ann),
        ("gate", Finding),
        ("status", VectorColumn),
        ("promote", Release),
        ("promote", GateAnswer),
        ("report", Overview),
        ("report", RunWork),
        ("report", ComponentFigures),
        ("report", Excerpt),
        ("report", AlikePair),
        ("map", MapReport),
        ("releases", Release),
        ("announce-model", Announcement),
        ("verify", AuditReport),
        ("verify", Damage),
        ("export", ExportReport),
        ("feedback", FeedbackReport),
        ("import", ImportReport),
        ("init", Draft),
        ("peek", Peek),
        ("peek", PeekedRecord),
        ("peek", PeekedChunk),
        ("stats", Statistics),
        ("stats", Figures),
        ("stats", LengthSummary),
        ("stats", Bin),
        ("validate", FileCheck),
        ("validate", Counted),
        ("validate", RowDifference),
    ],
)
def test_cli_page_has_each_json_key(command: str, record: type) -> None:
    section = section_of(command)
    names = {field.name for field in dataclasses.fields(record)} - {"metrics"}
    if record is RunReport:
        names = names - {"outcome"} | {"exit_code"}  # which says it
    assert {name for name in names if f"`{name}`" not in section} == set()


# Recipes, settings, reasons


def test_recipes_page_says_of_each_field_what_it_means_and_what_a_change_does() -> None:
    rows = re.findall(r"^\| `[a-z_.]+` \|.*$", page("recipes.md"), re.MULTILINE)
    assert [row for row in rows if "| |" in row] == []


def test_operations_page_has_each_setting_and_resource() -> None:
    text = page("operations.md")
    settings = set(Settings.model_fields) - {"resources"}
    variables = [f"EMBEDLAKE_{name.upper()}" for name in settings]
    variables += [f"EMBEDLAKE_RESOURCES__{name.upper()}" for name in Resources.model_fields]
    assert [name for name in variables if f"| `{name}` |" not in text] == []


@pytest.mark.parametrize(
    "variable", ["EMBEDLAKE_DEMO_MODEL", "EMBEDLAKE_ENGINE_TOKEN", "PREFECT_API_URL"]
)
def test_other_variables_are_documented(variable: str) -> None:
    assert variable in page("operations.md") and variable in (ROOT / "README.md").read_text()


def test_operations_page_has_each_reject_reason_and_no_other() -> None:
    table = page("operations.md").split("| reason | of | meaning |")[1].split("\n\n")[0]
    rows = re.findall(r"^\| (`[a-z_0-9`, ]+`) \| (\w+) \|", table, re.MULTILINE)
    weights = {name: weight for names, weight in rows for name in re.findall(r"`(\w+)`", names)}
    assert weights == {
        name: {"note": "chunk", "choice": "record"}.get(reason.weight, reason.weight)
        for name, reason in reasons.ALL.items()
    }


@pytest.mark.slow
def test_each_reject_reason_is_used() -> None:
    sources = [path for path in (ROOT / "embedding_core").rglob("*.py") if path.stem != "reasons"]
    text = "\n".join(path.read_text() for path in sources)
    constants = {name: value for name, value in vars(reasons).items() if isinstance(value, Reason)}
    unused = [
        name
        for name, reason in constants.items()
        if re.search(rf'\b{name}\b|"{reason.name}"', text) is None
    ]
    assert unused == []


def test_contributing_page_has_each_make_target() -> None:
    targets = re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE)
    text = (ROOT / "CONTRIBUTING.md").read_text()
    assert [target for target in targets if f"`make {target}`" not in text] == []


# What the pages show


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_resolve(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        found = (path.parent / name) if name else path
        assert found.exists(), f"{path.name} links to {target}"
        if anchor:
            assert anchor in anchors(found), f"{path.name} links to {target}"


def anchors(path: Path) -> set[str]:
    """Headings as GitHub makes anchors of them."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def recipe_blocks() -> list[Any]:
    found = []
    for path in PAGES:
        for number, block in enumerate(blocks(path.read_text(), "yaml")):
            found.append(pytest.param(block, id=f"{path.relative_to(ROOT)}-{number}"))
    return found


@pytest.mark.parametrize("block", recipe_blocks())
def test_yaml_blocks_are_recipes_or_files_beside_them(block: str) -> None:
    content = yaml.safe_load(block)
    if block.startswith("# articles.deploy.yaml"):
        file = DeployFile.model_validate(content)
        recipe = Recipe.load(
            {
                "name": "articles",
                "source": {"uri": "/data"},
                "model": {"name": "hashing"},
                "lake": {"uri": "/lake", "table": "articles"},
            }
        )
        template = template_of(file.pool, None)
        assert desired_items("/articles.yaml", recipe, file, template, UUID(int=1))
    else:
        Recipe.load(content, base=ROOT)


@pytest.fixture(scope="module")
def articles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the README's recipe, files for it, and the table it makes."""
    folder = tmp_path_factory.mktemp("readme")
    (block,) = blocks((ROOT / "README.md").read_text(), "yaml")
    (folder / "articles.yaml").write_text(block)
    write_jsonl(folder, "../articles/a.jsonl", ARTICLES)
    assert run(Recipe.load(folder / "articles.yaml")).outcome == "rejected"
    return folder


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_tables_are_whole(path: Path) -> None:
    """A row that a blank line cuts off from its table is shown as plain text."""
    prose = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    lines = [line.strip() for line in prose.splitlines()]
    firsts = [
        number
        for number, (before, line) in enumerate(itertools.pairwise(["", *lines]))
        if line.startswith("|") and not before.startswith("|")
    ]
    assert [lines[one] for one in firsts if not lines[one + 1].startswith("|---")] == []


def _shown(value: object) -> str:
    """As in JSON, strings without quotes."""
    return value if isinstance(value, str) else json.dumps(value)


def row_of(rule: Rule) -> str:
    treatment = rule.treatment
    if rule.accepted:
        treatment += ", unless " + " or ".join(f"`{_shown(value)}`" for value in rule.accepted)
    return f"| {', '.join(f'`{key}`' for key in rule.keys)} | {treatment} | {rule.why} |"


@pytest.mark.parametrize("name", TABLES)
def test_checkpoints_page_has_each_table_of_settings(name: str) -> None:
    rows = "\n".join(map(row_of, TABLES[name]))
    expected = f"### {name}\n\n| setting | treatment | why |\n|---|---|---|\n{rows}\n"
    assert expected in page("checkpoints.md")


PYTHON_PAGES = [path for path in PAGES if blocks(path.read_text(), "python")]


@pytest.mark.parametrize("path", PYTHON_PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_python_blocks_run(
    path: Path, articles: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(articles)
    namespace: dict[str, Any] = {"__name__": "docs"}
    for block in blocks(path.read_text(), "python"):
        exec(compile(block, str(path), "exec"), namespace)
    if path.name == "README.md":
        said = capsys.readouterr().out.split()
        assert said[1] == said[-1] == "leaf"


def test_checkpoints_page_says_what_differs_on_purpose() -> None:
    _, _, section = page("checkpoints.md").partition("## What differs from sentence-transformers")
    section = section.partition("\n## ")[0]
    assert "control tokens in a text" in section and "read as the characters" in section
    assert "the end token is appended, once" in section


def test_operations_page_says_how_a_cluster_is_joined() -> None:
    said = page("operations.md")
    for words in (
        "EMBEDLAKE_RAY_ADDRESS=head:6379",
        "RAY_AUTH_TOKEN",
        "address is that of the head's GCS",
    ):
        assert words in said
