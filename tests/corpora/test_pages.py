"""The pages of ``docs/corpora``: their recipes are the files, and their commands print what they
show."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from embedding_core.recipe import Recipe
from tests.corpora.conftest import MODEL, RECIPES, ROOT
from tests.corpora.samples import SAMPLES
from tests.embedlake.conftest import Embedlake
from tests.pages import commands, unlike
from tests.shell import Shell

pytestmark = pytest.mark.slow

PAGES = ROOT / "docs" / "corpora"


def page(name: str) -> str:
    return (PAGES / f"{name}.md").read_text()


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
