"""A window is counted by its edges: the same numbers as from all of its text, for any text."""

from __future__ import annotations

from collections.abc import Sequence
from pydoc_data.topics import topics

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from embedding_core.chunking import Tokenizer
from embedding_core.chunking.tokens.edges import count_spans
from embedding_core.chunking.tokens.token_map import TokenMap
from embedding_core.chunking.tokens.windowed import TokenChunker
from tests.chunking.test_tokens import TEXTS, WORDS, real_tokenizer, settings_of_chunks
from tests.chunking.tokenizers import EdgeTokenizer, LigatureTokenizer

PROSE = topics["exceptions"] + topics["class"]
TOKENIZERS = ["words", "edges", "ligatures", "minilm", "bpe"]


def tokenizer_of(name: str) -> Tokenizer:
    ours = {"words": WORDS, "edges": EdgeTokenizer(), "ligatures": LigatureTokenizer()}
    return ours[name] if name in ours else real_tokenizer(name)


class Seamless:
    """The same tokenizer without seams: every window is tokenised whole."""

    seams = ()

    def __init__(self, inner: Tokenizer) -> None:
        self.n_special, self.merges_at_start = inner.n_special, inner.merges_at_start
        self.offsets, self.count = inner.offsets, inner.count
        self.unknown_shares = inner.unknown_shares


class Counting(Seamless):
    """Counts the characters that it is given to count."""

    def __init__(self, inner: Tokenizer) -> None:
        super().__init__(inner)
        self.seams = inner.seams  # type: ignore[assignment]
        self.n_characters = 0
        self.count = self._count  # type: ignore[method-assign]
        self._inner = inner

    def _count(self, texts: Sequence[str]) -> list[int]:
        self.n_characters += sum(map(len, texts))
        return self._inner.count(texts)


@pytest.mark.slow
@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=300)
@example(text="a b c.\n\nd e", ends=(0, 9))
@given(text=TEXTS, ends=st.tuples(st.integers(0, 400), st.integers(0, 400)))
def test_count_spans_any_span_as_a_text_of_its_own(
    name: str, text: str, ends: tuple[int, int]
) -> None:
    tokenizer = tokenizer_of(name)
    start, end = sorted(min(at, len(text)) for at in ends)
    tokens = TokenMap.of(text, tokenizer)
    assert count_spans(text, tokens, tokenizer, [(start, end)]) == tokenizer.count(
        [text[start:end]]
    )


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=200)
@given(text=TEXTS, setting=settings_of_chunks())
def test_chunks_by_edges_are_those_counted_whole(
    name: str, text: str, setting: tuple[int, int, int]
) -> None:
    tokenizer = tokenizer_of(name)
    by_edges = TokenChunker(tokenizer, *setting).cut(text)
    assert by_edges == TokenChunker(Seamless(tokenizer), *setting).cut(text)


@pytest.mark.parametrize("name", ["minilm", "bpe"])
def test_windows_of_a_long_text_are_not_tokenised_again(name: str) -> None:
    tokenizer = Counting(real_tokenizer(name))
    text = (PROSE * 20)[:250_000]
    chunks = TokenChunker(tokenizer, 256, 32, 16).cut(text)
    assert tokenizer.n_characters < 0.1 * len(text)
    assert [chunk.n_tokens for chunk in chunks] == tokenizer.count([c.text for c in chunks])
