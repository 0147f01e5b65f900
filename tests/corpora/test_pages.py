"""The pages of ``docs/corpora``: their recipes are the files, and their commands print what they
show."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import embedlake as library
from embedding_core.recipe import Recipe, Resources
from embedding_core.reports.run import RunView
from embedding_core.runs.embed.planning import plan
from tests.corpora.conftest import MODEL, RECIPES, ROOT
from tests.corpora.samples import SAMPLES
from tests.embedlake.conftest import Embedlake

pytestmark = pytest.mark.slow

PAGES = ROOT / "docs" / "corpora"


def page(name: str) -> str:
    return (PAGES / f"{name}.md").read_text()


def commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """The commands of a page, each with the lines that are shown below it."""
    shown = "".join(re.findall(r"^```console\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    for block in re.split(r"^\$ ", shown, flags=re.MULTILINE)[1:]:
        command, *lines = block.splitlines()
        yield command, lines


def unlike(shown: list[str], printed: str) -> list[str]:
    """Lines that are shown and not printed, or not in that order; ``…`` stands for anything."""
    lines = iter(printed.splitlines())
    patterns = [(line, ".*".join(map(re.escape, line.split("…")))) for line in shown]
    return [line for line, pattern in patterns if not any(re.fullmatch(pattern, p) for p in lines)]


class Shell:
    """Runs a page's commands in a folder that looks like a checkout.

    ``embedlake`` runs in this process, and without Prefect and Ray where it embeds.
    """

    def __init__(self, folder: Path, embedlake: Embedlake, patch: pytest.MonkeyPatch) -> None:
        self._embedlake, self._patch = embedlake, patch
        for name in ("deployments", "tests"):
            (folder / name).symlink_to(ROOT / name)
        patch.chdir(folder)
        patch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")

    def run(self, command: str) -> str:
        """What a command prints."""
        words = shlex.split(command)
        if words[0] == "cd":
            self._patch.chdir(words[1])
            return ""
        if words[0] != "embedlake" or {"|", ">"} & set(words):
            answer = subprocess.run(
                ["bash", "-c", command], capture_output=True, text=True, check=False
            )
            assert answer.returncode == 0, answer.stderr
            return answer.stdout
        if words[1] == "embed" and not plan(recipe := Recipe.load(words[2])).is_empty:
            changes = [value.split("=") for value in words[3:] if "=" in value]
            report = library.embed(recipe, Resources().updated(dict(changes)))
            return "\n".join(RunView(report).lines())
        answer_here = self._embedlake(*words[1:])
        assert answer_here.code == 0, answer_here.err
        return answer_here.err + answer_here.out


@pytest.mark.parametrize("name", SAMPLES)
def test_page_has_the_recipe_as_it_is(name: str) -> None:
    text = (RECIPES / f"{name}.yaml").read_text()
    assert re.findall(r"^```yaml\n(.*?)^```$", page(name), re.MULTILINE | re.DOTALL) == [text]
    recipe = Recipe.load(RECIPES / f"{name}.yaml")
    assert (recipe.name, recipe.lake.table, recipe.model.name) == (name, name, MODEL)
    assert f"docs/corpora/{name}.md" in text
    commented = [line for line in text.splitlines() if "#" in line]
    assert len(commented) >= 6, "the reasons of the choices"


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLES)
def test_page_commands_print_what_is_shown(
    name: str, tmp_path: Path, embedlake: Embedlake, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell = Shell(tmp_path, embedlake, monkeypatch)
    for command, shown in commands(page(name)):
        printed = shell.run(command)
        assert unlike(shown, printed) == [], f"{command}\n{printed}"


@pytest.mark.parametrize("name", SAMPLES)
def test_sample_is_the_same_every_time(name: str, tmp_path: Path) -> None:
    contents = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        SAMPLES[name](folder)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        contents.append([(path.relative_to(folder), path.read_bytes()) for path in files])
    assert contents[0] == contents[1] != []


def test_index_names_every_corpus() -> None:
    linked = re.findall(r"\| \[\w+\]\((\w+)\.md\) \|", page("index"))
    assert linked == list(SAMPLES)
    assert {path.stem for path in PAGES.glob("*.md")} == {"index", *SAMPLES}
