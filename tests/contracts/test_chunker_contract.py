"""What every chunker promises, with every tokenizer: exact offsets, nothing lost, limits kept."""

from __future__ import annotations

from pydoc_data.topics import topics
from typing import Literal

import pytest

from embedding_core.chunking import Tokenizer, apply_length_policy, chunker_for
from embedding_core.encoder import resolve_model
from embedding_core.recipe import ChunkSpec, TokenWindows, WholeDocuments
from tests.chunking.tokenizers import WordTokenizer

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
    return resolve_model(
        name if name == "hashing" else str(request.getfixturevalue(name))
    ).tokenizer


@pytest.fixture(params=["tokens", "none"])
def spec(request: pytest.FixtureRequest) -> ChunkSpec:
    if request.param == "none":
        return WholeDocuments(strategy="none")
    return TokenWindows(max_tokens=LIMIT, overlap=8, min_tokens=12)


@pytest.mark.parametrize("name", TEXTS)
def test_chunk_offsets_are_exact_and_every_visible_character_is_in_a_chunk(
    tokenizer: Tokenizer, spec: ChunkSpec, name: str
) -> None:
    text = TEXTS[name]
    chunks = chunker_for(spec, tokenizer, LIMIT).chunk(text)
    covered = set[int]()
    for chunk in chunks:
        assert text[chunk.char_start : chunk.char_end] == chunk.text == chunk.text.strip()
        covered.update(range(chunk.char_start, chunk.char_end))
    assert all(text[i].isspace() for i in set(range(len(text))) - covered)
    assert [chunk.index for chunk in chunks] == list(range(len(chunks)))


@pytest.mark.parametrize("name", TEXTS)
def test_chunk_token_counts_are_the_tokenizers_own(
    tokenizer: Tokenizer, spec: ChunkSpec, name: str
) -> None:
    chunks = chunker_for(spec, tokenizer, LIMIT).chunk(TEXTS[name])
    assert [chunk.n_tokens for chunk in chunks] == tokenizer.count([c.text for c in chunks])
    if spec.strategy == "tokens":
        assert max(chunk.n_tokens for chunk in chunks) <= LIMIT


@pytest.mark.parametrize("policy", ["drop", "truncate", "split"])
@pytest.mark.parametrize("name", TEXTS)
def test_apply_length_policy_every_chunk_is_kept_or_named(
    tokenizer: Tokenizer, spec: ChunkSpec, name: str, policy: Literal["drop", "truncate", "split"]
) -> None:
    chunks = chunker_for(spec, tokenizer, LIMIT).chunk(TEXTS[name])
    cut = apply_length_policy(chunks, policy, tokenizer, LIMIT)
    assert [chunk.index for chunk in cut.kept] == list(range(len(cut.kept)))
    if policy == "truncate":
        assert len(cut.kept) == len(chunks) and not cut.dropped
        assert all(chunk.n_tokens > LIMIT and detail for chunk, detail in cut.truncated)
    else:
        assert not cut.truncated
        assert all(chunk.n_tokens <= LIMIT for chunk in cut.kept)
        assert bool(cut.dropped) == (policy == "drop" and any(c.n_tokens > LIMIT for c in chunks))
