"""A source that changes at random, run after run, beside the same choice in plain Python."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import embedlake
from embedding_core.recipe import Recipe, Resources
from embedding_core.runs.choosing.rules import Choosing, Identities
from embedding_core.runs.embed.planning import plan
from tests.driver import recipe_for, rows, write_jsonl

pytestmark = pytest.mark.slow

Key = tuple[str, str]
"""File name and id of a document."""

CHOICES = [
    {"sample": {"rows": 3, "per": "lang", "seed": 1}},
    {"sample": {"rows": 2, "per": "lang", "top": True}},
    {"deduplicate": True},
    {"limit": 12},
    {"deduplicate": True, "sample": {"rows": 4, "per": "lang", "seed": 2}, "limit": 7},
]


@dataclass
class Model:
    """The choice in plain Python, and what passed each of its steps the last time."""

    choosing: Choosing
    passed: dict[str, set[Key]] = field(default_factory=lambda: defaultdict(set))

    def choose(self, files: dict[str, list[dict[str, Any]]]) -> set[Key]:
        documents = {
            (name, record["id"]): record for name in sorted(files) for record in files[name]
        }
        left = list(documents)
        if self.choosing.deduplicate:
            left = self._first(left, "text", lambda key: documents[key]["text"], 1, left.index)
        if (sample := self.choosing.sample) is not None:
            by_chance = sample.seed is not None
            ranks = {
                key: Identities(self.choosing.key, key[0]).of(key[1]) if by_chance else number
                for number, key in enumerate(left)
            }
            left = self._first(
                left, "sample", lambda key: documents[key].get("lang"), sample.rows, ranks.get
            )
        if self.choosing.limit is not None:
            left = self._first(left, "limit", lambda _: None, self.choosing.limit, left.index)
        return set(left)

    def _first(self, left: list[Key], step: str, group_of: Any, n: int, rank_of: Any) -> list[Key]:
        groups = defaultdict(list)
        for key in left:
            groups[group_of(key)].append(key)
        chosen = {
            key
            for members in groups.values()
            for key in sorted(
                members, key=lambda key: (key not in self.passed[step], rank_of(key))
            )[:n]
        }
        self.passed[step] = chosen
        return [key for key in left if key in chosen]


@dataclass
class Source:
    """Files that come, grow, shrink and go."""

    draw: random.Random
    files: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    n_records: int = 0

    def change(self) -> None:
        for _ in range(self.draw.randrange(1, 4)):
            name = f"{self.draw.choice('abcdefgh')}.jsonl"
            kind = self.draw.random()
            content = self.files.get(name, [])
            if kind < 0.25 and len(self.files) > 2:
                self.files.pop(name, None)
            elif kind < 0.45 and content:
                content.pop(self.draw.randrange(len(content)))
            else:
                at = len(content) if kind < 0.8 else self.draw.randrange(len(content) + 1)
                content[at:at] = [self.record() for _ in range(self.draw.randrange(1, 8))]
                self.files[name] = content

    def record(self) -> dict[str, Any]:
        self.n_records += 1
        lang = self.draw.choice(["en", "de", None])
        text = f"text {self.draw.randrange(40)}"
        return {"id": f"d{self.n_records}", "text": text, **({"lang": lang} if lang else {})}

    def write(self, folder: Path) -> None:
        for path in (folder / "src").glob("*.jsonl"):
            path.unlink()
        for name, content in self.files.items():
            write_jsonl(folder, name, content)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_run_after_run_the_members_are_those_of_plain_python(
    tmp_path: Path, choice: dict[str, Any], seed: int
) -> None:
    recipe: Recipe = recipe_for(tmp_path, source=choice, max_removed_share=1)
    choosing = Choosing.of(recipe.source)
    assert choosing is not None
    model, source = Model(choosing), Source(random.Random(seed))
    for _ in range(4):
        source.change()
    for step in range(8):
        source.write(tmp_path)
        report = embedlake.embed(recipe, Resources(unit_bytes=500))
        assert report.outcome == "done" and report.verification.passed
        members = {(Path(row["source_uri"]).name, row["doc_id"]) for row in rows(recipe)}
        assert members == model.choose(source.files), f"step {step}"
        assert plan(recipe).is_empty
        source.change()
