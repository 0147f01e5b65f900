"""Commands of the pages that ask a Prefect server or a server of searches: they run, too."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from embedding_core.recipe import Recipe
from tests.driver import run
from tests.e2e.conftest import Commands
from tests.e2e.forks import ENTRIES
from tests.embedlake.test_shown_pages import SERVER, all_pages, make, shown, why_not

pytestmark = pytest.mark.e2e

PAGE = "docs/serve.md"
ADDRESS = "http://127.0.0.1:8765"
"""Where a server of searches listens on the pages."""


def in_bash(line: str, folder: Path, environment: dict[str, str]) -> str:
    """What a line prints; fails when it does."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", line], cwd=folder, env=environment | {"PATH": path}, text=True,
        capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{line}\n{done.stderr}{done.stdout}"
    return done.stdout


def commands_of_servers() -> list[str]:
    """Each command that asks a Prefect server, once."""
    lines = [line for page in all_pages() for line in shown(page) if why_not(line) == SERVER]
    return list(dict.fromkeys(line.partition("  #")[0].rstrip() for line in lines))


@pytest.fixture
def data(tmp_path: Path, tiny_qwen3: Path) -> Path:
    """What the pages have at ``/data``: recipes and their files, labels, and models to announce."""
    data = tmp_path / "data"
    recipes = data / "recipes"
    recipes.mkdir(parents=True)
    make(recipes)
    shutil.copytree(recipes / "articles", data / "articles")
    (data / "q.jsonl").write_text('{"_id": "q", "text": "light"}\n')
    (data / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq\tleaf\t1\n")
    labels = {"queries": str(data / "q.jsonl"), "qrels": str(data / "qrels.tsv")}
    content = yaml.safe_load((recipes / "articles.yaml").read_text()) | {"release": labels}
    (recipes / "articles.yaml").write_text(yaml.safe_dump(content))
    for name in ("2026-11-21", "2026-11-21T141200Z"):
        shutil.copytree(tiny_qwen3, recipes / "models" / name)
    return data


@pytest.mark.timeout(900)
def test_commands_that_ask_a_prefect_server_run(commands: Commands, data: Path) -> None:
    words = {
        "/data/": f"{data}/",
        "s3://models/support/": f"{data}/recipes/models/",
        "s3://bucket/": f"{data}/bucket/",
    }
    lines = commands_of_servers()
    assert len(lines) > 8
    for line in lines:
        for word, ours in words.items():
            line = line.replace(word, ours)
        in_fork_or_bash(line, data / "recipes", commands)


def in_fork_or_bash(line: str, folder: Path, commands: Commands) -> None:
    """Run a line; in a fork, which has its libraries at once, where it is one command."""
    program, *arguments = shlex.split(line)
    if program not in ENTRIES or ">" in arguments:
        in_bash(line, folder, commands.environment)
        return
    answer = commands.run(program, *arguments, cwd=folder)
    assert answer.code == 0, f"{line}\n{answer.err}{answer.out}"


def test_servers_of_searches_start_as_shown_and_answer_what_is_asked(tmp_path: Path) -> None:
    make_tables(tmp_path)
    lines = [line.partition("  #")[0] for page in all_pages() for line in shown(page)]
    starts = {line.rstrip() for line in lines if line.startswith("embedlake serve")}
    (with_feedback,) = [line for line in starts if "--feedback" in line]
    for start in starts - {with_feedback}:
        with serving(start, tmp_path):
            pass
    with serving(with_feedback, tmp_path) as url:
        for line in shown(PAGE):
            if line.startswith("curl"):
                assert ADDRESS in line
                answer = in_bash(line.replace(ADDRESS, url), tmp_path, dict(os.environ))
                assert "error" not in json.loads(answer), answer


def make_tables(folder: Path) -> None:
    """The tables of two recipes."""
    run(make(folder))
    text = (folder / "articles.yaml").read_text()
    (folder / "support.yaml").write_text(text.replace("name: articles", "name: support").replace(
        "table: articles", "table: support"))  # fmt: skip
    run(Recipe.load(folder / "support.yaml"))


@contextmanager
def serving(line: str, folder: Path) -> Iterator[str]:
    """The address of a server that was started so, but for its port; it ends as it should."""
    program, *words = line.split()
    process = subprocess.Popen(
        [str(Path(sys.executable).parent / program), *words, "--port", "0", "--json"],
        cwd=folder, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["url"]
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130
    finally:
        process.kill()
        process.communicate()
