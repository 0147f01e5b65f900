"""Recipes of ``deployments/recipes`` beside a sample of their corpus, in a temporary folder."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from embedding_core.recipe import Recipe, Resources
from embedding_core.runs.embed.finish_stage import RunReport
from embedding_core.runs.embed.planning import plan
from embedding_core.runs.repair import audit
from embedlake import embed
from tests.corpora.samples import SAMPLES
from tests.embedlake.conftest import embedlake

__all__ = ["embedlake"]  # the command line, as a fixture

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ROOT / "deployments" / "recipes"
MODEL = "Qwen/Qwen3-Embedding-0.6B"
"""The model that each recipe names."""


class Trial:
    """A copy of a recipe with another model, beside its sample."""

    def __init__(self, name: str, folder: Path, model: str, edits: dict[str, str]) -> None:
        self.data = folder / "data"
        self.path = folder / f"{name}.yaml"
        if not self.data.exists():
            SAMPLES[name](self.data)
        text = (RECIPES / self.path.name).read_text()
        for old, new in {MODEL: model, **edits}.items():
            assert old in text
            text = text.replace(old, new)
        self.path.write_text(text)

    @property
    def recipe(self) -> Recipe:
        """The recipe, with paths beside its file."""
        return Recipe.load(self.path)

    def file(self, row: dict[str, Any]) -> str:
        """The path below the source of a row's file."""
        return str(Path(row["source_uri"]).relative_to(self.data))

    def embed(self, resources: Resources | None = None) -> RunReport:
        """Run the recipe, look for damage, and run it again, which does nothing."""
        report = embed(self.recipe, resources)
        assert report.verification.passed and not report.failures
        assert audit(self.recipe, Resources(), deep=True).damages == ()
        assert plan(self.recipe).is_empty
        again = embed(self.recipe, resources)
        assert (again.version, again.rows, again.chunks) == (report.version, report.rows, 0)
        return report


Try = Callable[..., Trial]


@pytest.fixture
def trial(tmp_path: Path) -> Try:
    """Makes a trial of a recipe: ``trial("chat", model="hashing", edits={old: new})``."""

    def make(
        name: str, folder: str = "", model: str = "hashing", edits: dict[str, str] | None = None
    ) -> Trial:
        directory = tmp_path / folder
        directory.mkdir(exist_ok=True)
        return Trial(name, directory, model, edits or {})

    return make


def hashing_tokens(text: str) -> int:
    """Tokens of the encoder ``hashing``: words and marks."""
    return len(re.findall(r"\w+|[^\w\s]", text))
