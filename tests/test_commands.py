"""Every command on a page would be taken by its program; the runbook knows every fault."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml

from embedding_core import reasons
from embedding_core.runs.outcome import EXIT_CODES
from embedlake.deploying.guards import shipped_automations
from embedlake.orchestration.outcome import NAMES
from tests.shown_commands import (
    CHECKERS,
    ELSEWHERE,
    FENCED,
    LANGUAGES,
    ROOT,
    SPAN,
    fenced_commands,
    inline_commands,
    inline_problems,
    problems,
)

PAGES = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")),
    ROOT / "infra" / "README.md",
    ROOT / "benchmarks" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
PACKAGES = ("embedding_core", "embedlake")
BLOCKS = [path for path in PAGES if FENCED.search(path.read_text())]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", BLOCKS, ids=name_of)
def test_each_command_of_a_block_would_be_taken(path: Path) -> None:
    text = path.read_text()
    languages = {language.partition(" ")[0] for _, language, _ in FENCED.findall(text)}
    assert languages <= LANGUAGES, "a block of commands has no language, other text is `text`"
    wrong = {line: said for line in fenced_commands(text) if (said := problems(line))}
    assert wrong == {}


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_each_command_in_a_sentence_and_its_options_exist(path: Path) -> None:
    spans = inline_commands(path.read_text(), ["embedlake"])
    assert {span: said for span in spans if (said := list(inline_problems(span)))} == {}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("embedlake embd articles.yaml", "no command 'embd'"),
        ("embedlake embed articles.yaml --reverse", "--reverse"),
        ("embedlake embed", "RECIPE"),
        ("embedlake embed a.yaml b.yaml", "unexpected extra argument"),
        ("embedlake embed articles.yaml --set gpus=1", "gpus"),
        ("embedlake embed articles.yaml --then 'export=./out --into parquet'", "--into"),
        ("EMBEDLAKE_RESOURCES__GPUS=1 embedlake embed articles.yaml", "no setting"),
        ("export EMBEDLAKE_RAY=head:6379", "no setting EMBEDLAKE_RAY"),
        ("embedlake up && prefect deployment rum embed/articles", "rum"),
        ("prefect deployment run embed/articles --parameter a=1", "--parameter"),
        ("ray start --heed", "--heed"),
        ("make tests", "no target 'tests'"),
        ("make bench BIER=x", "no variable BIER"),
        ("python -m benchmarks.encode --devise cpu", "unrecognized arguments: --devise"),
        ("python -m benchmarks.engines --part none", "invalid choice: 'none'"),
        ("python -m benchmarks.lake --only none", "invalid choice: 'none'"),
        ("python -m benchmarks.kernels --fast", "takes no options"),
        ("python -m experiments.faults --most x", "invalid int value"),
        ("python -m benchmarks.nothing", "no program"),
        ("pip install 'embedlake[runn]'", "no extra 'runn'"),
        ("pip install -r infra/none.txt", "no file"),
        ("docker compose -f infra/none.yaml up", "no file"),
        ("docker run embedlake", "only compose"),
        ("kubectl apply -k infra/none", "no kustomization"),
        ("kubectl port-forward service/none 4200", "no service/none"),
        ("curl http://127.0.0.1:8765/tables", "nothing at /tables"),
        ('curl http://127.0.0.1:8765/feedback -d \'{"tabel": "a"}\'', "tabel"),
        ("infra/vllm/start.sh model", "no script"),
        ("find . | while read -r file; do embedlake validate a.yaml; done", "FILE"),
        ("frobnicate --all", "nothing here checks"),
    ],
)
def test_wrong_command_is_told(line: str, said: str) -> None:
    assert said in " ".join(problems(line))


def test_command_in_a_sentence_may_lack_arguments_and_has_no_unknown_option() -> None:
    assert list(inline_problems("embedlake embed --allow-removals")) == []
    assert list(inline_problems("embedlake --version")) == []
    assert list(inline_problems("embedlake embed --remove")) == ["embed has no option --remove"]
    assert list(inline_problems("embedlake embd")) == ["there is no command 'embd'"]


# The runbook

RUNBOOK = ROOT / "docs" / "runbook.md"


def entries(heading: str) -> list[list[str]]:
    """The rows of the table under a heading, cell by cell."""
    section = RUNBOOK.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (.+) \|$", section, re.MULTILINE)
    return [re.split(r" \| ", row) for row in rows[1:]]


def named(heading: str, column: int = 0) -> set[str]:
    """All code in a column of a table."""
    return {span for entry in entries(heading) for span in SPAN.findall(entry[column])}


HEADINGS = ("How a run ended", "Kinds of errors", "What messages say", "Alerts",
            "Why something was left out")  # fmt: skip


@pytest.mark.parametrize("heading", HEADINGS)
def test_runbook_entry_says_what_it_means_and_what_to_do_with_commands_that_exist(
    heading: str,
) -> None:
    programs = [*CHECKERS, *ELSEWHERE]
    for entry in entries(heading):
        assert all(cell.strip() for cell in entry)
        spans = [span for span in SPAN.findall(entry[-1]) if span.partition(" ")[0] in programs]
        assert spans or entry[-1] == "nothing", f"{entry[0]} names no command"
        typed = [span for span in spans if span.partition(" ")[2]]
        assert {span: said for span in typed if (said := problems(span))} == {}


def test_runbook_has_each_alert_and_automation() -> None:
    rules = yaml.safe_load((ROOT / "infra" / "monitoring" / "rules.yaml").read_text())
    alerts = {rule["alert"] for group in rules["groups"] for rule in group["rules"]}
    assert named("Alerts") == alerts
    text = RUNBOOK.read_text().lower()
    assert [name for name in shipped_automations() if f"`{name}`" not in text] == []


def test_runbook_has_each_exit_code_and_state() -> None:
    signals = {"2", "130", "143"}
    states = {"Completed", "Failed", "Locked", "Crashed", "Late", "Running", *NAMES.values()}
    flows = "".join(path.read_text() for path in (ROOT / "flows").glob("*.py"))
    states |= set(re.findall(r'Completed\(name="(\w+)"', flows))
    codes = {str(code) for code in EXIT_CODES.values()}
    assert named("How a run ended") == codes | signals | states


def test_runbook_has_each_kind_of_error_with_its_code() -> None:
    kinds, bases = {"EmbedlakeError"}, dict(classes())
    while more := {name for name, base in bases.items() if base in kinds} - kinds:
        kinds |= more
    assert named("Kinds of errors") == kinds


def test_runbook_has_each_reason() -> None:
    assert named("Why something was left out") == set(reasons.ALL)


def test_runbook_quotes_what_is_said() -> None:
    for quote in named("What messages say"):
        pattern = ".*?".join(map(re.escape, quote.split("…")))
        assert any(re.search(pattern, text, re.DOTALL) for text in strings()), quote


@cache
def nodes() -> tuple[ast.AST, ...]:
    """Everything in every module of the packages."""
    paths = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return tuple(node for path in paths for node in ast.walk(ast.parse(path.read_text())))


def classes() -> Iterator[tuple[str, str]]:
    """Every class with its first base."""
    for node in nodes():
        if isinstance(node, ast.ClassDef) and node.bases and isinstance(node.bases[0], ast.Name):
            yield node.name, node.bases[0].id


@cache
def strings() -> tuple[str, ...]:
    """Every string of the packages; what is filled in is a gap."""
    return tuple(filter(None, map(_string, nodes())))


def _string(node: ast.AST) -> str | None:
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(_string(part) or "\0" for part in node.values)
    return None
