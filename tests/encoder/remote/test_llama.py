"""A real server beside the encoder that is built in: the same vectors and the same answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np
import pytest

from embedding_core.encoder import Encoder
from embedding_core.encoder.parity import PARITY_TEXTS
from embedding_core.lake.query.search import Query
from embedding_core.lake.spaces.switching import promote
from embedding_core.lake.table import table_of
from embedding_core.recipe import ModelSpec, Recipe, Resources
from embedding_core.runs.answers import search
from embedding_core.runs.embed.run import embed
from embedding_core.runs.job import unload
from embedding_core.runs.space.build import build_space
from embedding_core.runs.space.release_gate import gate
from tests.driver import recipe_for, rows, write_jsonl
from tests.llama import MODEL, llama_server, write_gguf

pytestmark = pytest.mark.slow

SECTIONS = {name: text[:1_500] for name, text in sorted(topics.items())[:20]}
QUERIES = {
    "1": "how are names looked up in scopes",
    "2": "raise an exception again",
    "3": "what a with statement does",
    "4": "formatting of strings",
    "5": "arithmetic conversions of numbers",
}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with llama_server(write_gguf(tmp_path_factory.mktemp("gguf") / "minilm.gguf"), 2) as url:
        yield url
    unload()


def recipe_with(folder: Path, **model: Any) -> Recipe:
    write_jsonl(folder, "a.jsonl", SECTIONS)
    section = {"dim": None, "dtype": "fp32"} | model
    return recipe_for(folder, model=section, chunk={"max_tokens": 64})


def answers(recipe: Recipe) -> dict[str, set[str]]:
    """Texts of the best five chunks of each query."""
    found = search(recipe, Resources(), QUERIES, Query(k=5))
    return {answer.query_id: {hit.text for hit in answer.hits} for answer in found}


def test_server_vectors_are_those_of_the_built_in_encoder(url: str) -> None:
    texts = [*PARITY_TEXTS, *SECTIONS.values(), "word " * 600]
    served, built_in = Encoder.load(url, tokenizer=MODEL), Encoder.load(MODEL, dtype="fp32")
    ours, theirs = served.encode(texts), built_in.encode(texts)
    assert ((ours.vectors * theirs.vectors).sum(axis=1) >= 0.999).all()
    assert (ours.n_tokens, ours.n_truncated) == (theirs.n_tokens, theirs.n_truncated)
    assert served.space.tokenizer == built_in.space.tokenizer


def test_tables_by_either_engine_give_the_same_answers(url: str, tmp_path: Path) -> None:
    served = recipe_with(tmp_path / "served", name=url, tokenizer=MODEL)
    built_in = recipe_with(tmp_path / "built-in", name=MODEL)
    for recipe in (served, built_in):
        assert embed(recipe).outcome == "done"
    assert [row["text"] for row in rows(served)] == [row["text"] for row in rows(built_in)]
    pairs = zip(rows(served, "vector"), rows(built_in, "vector"), strict=True)
    vectors = np.array([(a["vector"], b["vector"]) for a, b in pairs], np.float32)
    assert ((vectors[:, 0] * vectors[:, 1]).sum(axis=1) >= 0.999).all()
    assert answers(served) == answers(built_in)


def test_table_is_embedded_again_from_one_engine_to_the_other(url: str, tmp_path: Path) -> None:
    recipe = recipe_with(tmp_path, name=MODEL)
    embed(recipe)
    newer = ModelSpec(name=url, tokenizer=MODEL, dtype="fp32")
    report = build_space(recipe, newer, Resources(), "build")
    assert report.missing_rows == 0
    judged = gate(recipe, Resources(), report.column)
    assert judged.verdict == "yes", judged
    before = answers(recipe)
    promote(table_of(recipe), report.column, "me", wait_seconds=10)
    switched = recipe.model_copy(update={"model": newer})
    assert embed(switched).embedded == 0
    assert answers(switched) == before


def test_text_longer_than_the_server_takes_is_alone_without_a_vector(url: str) -> None:
    """llama.cpp fails over a text that is longer than its context; the counter took it for less."""
    encoder = Encoder.load(url, tokenizer="cautious", max_tokens=512)
    (batch,) = encoder.encode_stream([["short", "xqz " * 450, "short again"]])
    assert batch.column("failure").to_pylist() == [None, "refused_by_server", None]
