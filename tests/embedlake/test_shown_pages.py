"""Every command that a page shows runs, or stands in one list with the reason why it does not.

A page's commands run in order, in a folder of the page's own, with what the page presupposes. What
is listed in ``NOT_RUN`` is parsed by its program's own parser, as every command is
(``tests/test_commands.py``).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from embedding_core.encoder.engines import describe_model
from embedding_core.exports.spec import ExportSpec
from embedding_core.identity import space_id
from embedding_core.lake.readers.feedback import Feedback, append_feedback
from embedding_core.lake.schema import hidden_name
from embedding_core.lake.spaces.switching import promote
from embedding_core.lake.table import table_of
from embedding_core.recipe import ModelSpec, Recipe, Resources
from embedding_core.runs.exchange.exporting import export
from embedding_core.runs.space.build import build_space
from tests.driver import run
from tests.embedlake.conftest import Embedlake
from tests.shell import Shell
from tests.shown_commands import FENCED, ROOT, fenced_commands

pytestmark = pytest.mark.slow

RUN_ELSEWHERE = {
    "docs/quickstart.md": "tests/e2e/test_wheel.py",
    **{
        f"docs/corpora/{name}.md": "tests/corpora/test_pages.py"
        for name in ("arabic", "chat", "encyclopedia", "prompts", "web")
    },
}
"""Pages whose commands run in a test of their own, which also compares what they print."""

SERVER = "asks a Prefect server: tests/e2e/test_shown_servers.py runs it"
NOT_RUN: Mapping[str, str] = {
    "make *": "a target of the checkout: CI runs it",
    "source .venv/bin/activate": "prepares the reader's shell",
    "pip install *": "asks a registry: tests/e2e/test_wheel.py and `make check-install` install",
    "python -m benchmarks.*": "takes minutes, or a GPU; its own parser takes what is shown",
    "BEIR=path/to/cranfield python -m benchmarks.*": "the same",
    'C="--device cuda*': "the same",
    "python -m experiments.*": "takes minutes to hours; its own parser takes what is shown",
    "docker compose *": "needs Docker: tests/infra checks the files with their schemas",
    "kubectl *": "needs a cluster: tests/infra checks the files with their schemas",
    "python3 -m venv vllm*": "installs vLLM, which needs a GPU",
    "VLLM=vllm/bin/vllm infra/vllm/serve.sh *": "needs vLLM: tests/infra runs it with a stand-in",
    "embedlake search recipe.yaml * --bridge *": "needs a sample of a model: tests/runs/"
    "test_bridging.py searches by one",
    "embedlake reembed *": "runs on Ray: tests/e2e/test_reembed.py runs it with its options",
    "embedlake export articles.yaml hf://*": "needs an account: tests/exchange has a stand-in hub",
    "ray start *": "starts a cluster: tests/e2e/test_cluster.py has one",
    "uvx *": "downloads another program",
    "embedlake view *": "opens another program: tests/embedlake/test_cli_look.py has a stand-in",
    "embedlake serve *": "does not end: tests/e2e/test_shown_servers.py runs it",
    "curl *": "asks that server: tests/e2e/test_shown_servers.py runs it",
    "python examples/finetune.py *": "trains a model: tests/test_finetune.py runs it small",
    "embedlake bench *": "measures, a minute: tests/embedlake/test_cli.py runs it for a moment",
    "embedlake up *": "starts servers: the quickstart, in tests/e2e/test_wheel.py, runs it",
    "export PREFECT_API_URL=*": "has a value that the reader fills in",
    "export EMBEDLAKE_RAY_ADDRESS=*": "names a cluster: tests/e2e/test_cluster.py has one",
    "embedlake deploy *": SERVER,
    "prefect --no-prompt deploy *": SERVER,
    "prefect deployment run *": SERVER,
    "embedlake announce-model *": SERVER,
}
"""Commands, as patterns, that no page runs, and why."""

BUILT = hidden_name(space_id(describe_model(ModelSpec(name="hashing", dim=128)).space))
"""The column of a space that is built in the test."""
TEXTS = [
    {"id": "leaf", "title": "Leaves", "text": "Leaves turn light into sugar.", "year": 2021},
    {"id": "bank", "title": "Banks", "text": "Interest rates rose again.", "year": 2022},
    {"id": "sun", "title": "Solar power", "text": "Cells turn light into current.", "year": 2020},
    {"id": "lost", "title": "Rejected: its text is missing", "year": 2022},
    *(
        {"id": f"n{n}", "title": f"Number {n}", "text": f"A text of {n} things.", "year": 2000 + n}
        for n in range(12)
    ),
]


@dataclass(frozen=True)
class Page:
    """What a page presupposes."""

    name: str
    recipe: str = "articles.yaml"
    is_embedded: bool = True
    """Whether its first command is for a table that there is."""
    before: Mapping[str, Callable[[Path], object]] = field(default_factory=dict)
    """What has to be there before some commands, by how they begin."""
    words: Mapping[str, str] = field(default_factory=dict)
    """What stands in a command for something of the reader's, and what the test has for it."""


def make(folder: Path, name: str = "articles.yaml") -> Recipe:
    """Files and a recipe like those of README.md, with a model that costs nothing."""
    (folder / "articles").mkdir(exist_ok=True)
    lines = "".join(json.dumps(text) + "\n" for text in TEXTS)
    (folder / "articles" / "a.jsonl").write_text(lines)
    (block,) = (body for _, language, body in FENCED.findall((ROOT / "README.md").read_text())
                if language == "yaml")  # fmt: skip
    content = yaml.safe_load(block) | {"model": {"name": "hashing"}, "max_rejected_share": 1.0}
    (folder / name).write_text(yaml.safe_dump(content))
    return Recipe.load(folder / name)


def embedded(folder: Path) -> None:
    """The recipe's table."""
    run(make(folder))


def proposed(folder: Path) -> None:
    """Files, and no recipe yet."""
    make(folder)
    (folder / "articles.yaml").unlink()


def no_table(folder: Path) -> None:
    """No table, so that an import may make it."""
    shutil.rmtree(folder / "lake")


def no_export(folder: Path) -> None:
    """No export at the destination: each line is an example of its own."""
    shutil.rmtree(folder / "out", ignore_errors=True)


def vectors_of_others(folder: Path) -> None:
    """A file of texts and vectors under other names, and no table."""
    rows = table_of(Recipe.load(folder / "articles.yaml")).to_arrow(["doc_id", "text", "vector"])
    columns = ["prompt_id", "body", "embedding"]
    pq.write_table(pa.table(dict(zip(columns, rows.columns, strict=True))), "vectors.parquet")
    no_table(folder)


def exported_whole(folder: Path) -> None:
    """An export with all columns, and no table."""
    no_export(folder)
    export(Recipe.load(folder / "articles.yaml"), ExportSpec(to="parquet"), str(folder / "out"))
    no_table(folder)


def promoted(folder: Path) -> None:
    """Another model in service, as after a re-embed."""
    recipe = Recipe.load(folder / "recipe.yaml")
    built = build_space(recipe, ModelSpec(name="hashing", dim=128), Resources(), "a build")
    promote(table_of(recipe), built.column, "a person")


def opinions(folder: Path) -> None:
    """What people said of answers."""
    table = table_of(Recipe.load(folder / "articles.yaml"))
    append_feedback(table, [Feedback(datetime.now(UTC), "light", "leaf", "relevant")])


BEFORE_INIT: Mapping[str, Callable[[Path], object]] = {
    "embedlake init": proposed,
    "embedlake peek": make,
    "embedlake plan": make,
}
PAGES = (
    Page("README.md", is_embedded=False, before=BEFORE_INIT),
    Page("docs/index.md", is_embedded=False, before=BEFORE_INIT),
    Page("docs/inputs.md", is_embedded=False, before=BEFORE_INIT),
    Page("docs/cli.md"),
    Page("docs/exports.md", words={"s3://bucket/": "bucket/"}, before={
        "embedlake export articles.yaml ./out": no_export,
        "embedlake import ./out": exported_whole,
        "embedlake import vectors.parquet": vectors_of_others,
    }),
    Page("docs/operations.md"),
    Page("docs/releases.md", recipe="recipe.yaml", words={"vector__3aef90ff": BUILT}, before={
        "embedlake rollback": promoted,
    }),
    Page("docs/report.md"),
    Page("docs/runbook.md"),
    Page("docs/serve.md", before={"embedlake feedback": opinions}),
    Page("docs/sizing.md"),
    Page("infra/README.md"),
)  # fmt: skip


def shown(page: str) -> list[str]:
    """The commands of a page, in order."""
    return fenced_commands((ROOT / page).read_text())


def why_not(command: str) -> str | None:
    """Why no page runs a command; None for one that runs."""
    matching = (why for pattern, why in NOT_RUN.items() if fnmatchcase(command, pattern))
    return next(matching, None)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_of_a_page_run(
    page: Page, tmp_path: Path, embedlake: Embedlake, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell = Shell(tmp_path, embedlake, monkeypatch)
    recipe = make(tmp_path, page.recipe)
    if page.is_embedded:
        run(recipe)
    for command in shown(page.name):
        if why_not(command):
            continue
        for beginning, prepare in page.before.items():
            if command.startswith(beginning):
                prepare(tmp_path)
        for word, ours in page.words.items():
            command = command.replace(word, ours)
        shell.run(command)


def all_pages() -> Iterator[str]:
    """Pages that show commands."""
    top = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
    rooms = ("docs", "infra", "deployments", "examples", "benchmarks")
    paths = [ROOT / name for name in top]
    paths += [path for room in rooms for path in sorted((ROOT / room).rglob("*.md"))]
    for path in paths:
        if fenced_commands(path.read_text()):
            yield str(path.relative_to(ROOT))


def test_each_page_has_its_commands_run_or_listed() -> None:
    run_here = {page.name for page in PAGES}
    elsewhere = [page for page in all_pages() if page not in run_here | RUN_ELSEWHERE.keys()]
    neither = {page: [line for line in shown(page) if not why_not(line)] for page in elsewhere}
    assert {page: lines for page, lines in neither.items() if lines} == {}
    assert run_here | RUN_ELSEWHERE.keys() <= set(all_pages())


@pytest.mark.parametrize("pattern", NOT_RUN)
def test_each_command_that_is_listed_is_shown(pattern: str) -> None:
    pages = [page for page in all_pages() if page not in RUN_ELSEWHERE]
    assert any(fnmatchcase(line, pattern) for page in pages for line in shown(page))
    assert NOT_RUN[pattern]


def test_pages_that_run_elsewhere_have_a_test_that_reads_them() -> None:
    for page, test in RUN_ELSEWHERE.items():
        text = (ROOT / test).read_text()
        assert Path(page).name in text or 'docs" / "corpora' in text
