"""What every chunker promises, with every tokenizer: exact offsets, nothing lost, limits kept."""

from __future__ import annotations

from pydoc_data.topics import topics
from typing import Literal

import pytest

from embedding_core.chunking import Tokenizer, apply_length_policy, chunker_for, settled
from embedding_core.recipe.chunk import STRATEGIES, ChunkOptions
from embedding_core.records import Document
from tests.chunking.tokenizers import WordTokenizer
from tests.models import describe

TEXTS = {
    "prose": topics["exceptions"],
    "code": topics["class"],
    "one word": "word",
    "surrounded by space": "\n\n  some words between blanks \t\n",
    "mixed scripts": "naïve 中文字符没有空格 👩‍👩‍👧 e\u0301clair مرحبا بالعالم " * 20,
    "no space at all": "x" * 3_000,
}
LIMIT = 48


@pytest.fixture(params=["words", "hashing", "minilm", "tiny_qwen3"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    if request.param == "words":
        return WordTokenizer()
    name = request.param
    return describe(name if name == "hashing" else str(request.getfixturevalue(name))).tokenizer


SETTINGS = {"tokens": {"max_tokens": LIMIT, "overlap": 8, "min_tokens": 12}, "none": {}}
"""Options of each strategy."""


@pytest.fixture(params=list(STRATEGIES.working()))
def spec(request: pytest.FixtureRequest) -> ChunkOptions:
    section = {"strategy": request.param} | SETTINGS[request.param]
    options: ChunkOptions = STRATEGIES.get(request.param).options.model_validate(section)
    return settled(options, LIMIT)


def test_a_strategy_is_registered_under_the_name_of_its_section(spec: ChunkOptions) -> None:
    assert type(spec) is STRATEGIES.get(spec.strategy).options
    assert "tokenizer" not in spec.hashed() and spec.hashed()["strategy"] == spec.strategy
    assert settled(spec, LIMIT) == spec


@pytest.mark.parametrize("name", TEXTS)
def test_chunk_offsets_are_exact_and_every_visible_character_is_in_a_chunk(
    tokenizer: Tokenizer, spec: ChunkOptions, name: str
) -> None:
    text = TEXTS[name]
    chunks = list(chunker_for(spec, tokenizer, LIMIT).chunk(Document("d", 0, text)))
    covered = set[int]()
    for chunk in chunks:
        assert text[chunk.char_start : chunk.char_end] == chunk.text == chunk.text.strip()
        covered.update(range(chunk.char_start, chunk.char_end))
    assert all(text[i].isspace() for i in set(range(len(text))) - covered)
    assert [chunk.index for chunk in chunks] == list(range(len(chunks)))


@pytest.mark.parametrize("name", TEXTS)
def test_chunk_token_counts_are_the_tokenizers_own(
    tokenizer: Tokenizer, spec: ChunkOptions, name: str
) -> None:
    chunks = list(chunker_for(spec, tokenizer, LIMIT).chunk(Document("d", 0, TEXTS[name])))
    assert [chunk.n_tokens for chunk in chunks] == tokenizer.count([c.text for c in chunks])
    if spec.strategy == "tokens":
        assert max(chunk.n_tokens for chunk in chunks) <= LIMIT


@pytest.mark.parametrize("policy", ["drop", "truncate", "split"])
@pytest.mark.parametrize("name", TEXTS)
def test_apply_length_policy_every_chunk_is_kept_or_named(
    tokenizer: Tokenizer,
    spec: ChunkOptions,
    name: str,
    policy: Literal["drop", "truncate", "split"],
) -> None:
    chunks = list(chunker_for(spec, tokenizer, LIMIT).chunk(Document("d", 0, TEXTS[name])))
    cut = apply_length_policy(chunks, policy, tokenizer, LIMIT)
    assert [chunk.index for chunk in cut.kept] == list(range(len(cut.kept)))
    if policy == "truncate":
        assert len(cut.kept) == len(chunks) and not cut.dropped
        assert all(chunk.n_tokens > LIMIT and detail for chunk, detail in cut.truncated)
    else:
        assert not cut.truncated
        assert all(chunk.n_tokens <= LIMIT for chunk in cut.kept)
        assert bool(cut.dropped) == (policy == "drop" and any(c.n_tokens > LIMIT for c in chunks))
