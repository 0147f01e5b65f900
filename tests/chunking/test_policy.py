"""The length policy and the choice of a chunker."""

from __future__ import annotations

import pytest

from embedding_core.chunking import (
    apply_length_policy,
    chunk_document,
    chunker_for,
    settled,
)
from embedding_core.chunking.tokens.token_map import count_tokens, segments
from embedding_core.chunking.tokens.windowed import TokenWindows
from embedding_core.chunking.whole import WholeDocuments
from embedding_core.errors import UsageError
from embedding_core.records import Chunk, Document
from tests.chunking.tokenizers import LigatureTokenizer, WordTokenizer

WORDS = WordTokenizer()
WHOLE = WholeDocuments(strategy="none")
TEXT = "  " + "word " * 40 + "end. "


def chunks_of(text: str) -> list[Chunk]:
    return list(chunker_for(WHOLE, WORDS, 100).chunk(Document("d", 0, text)))


def test_none_keeps_a_document_whole_without_white_space_at_its_ends() -> None:
    (chunk,) = chunks_of(TEXT)
    assert chunk == Chunk(0, TEXT.strip(), 2, len(TEXT) - 1, 44)
    assert chunks_of(" \n") == []


def test_drop_leaves_a_long_chunk_out_and_says_why() -> None:
    cut = apply_length_policy(chunks_of(TEXT), "drop", WORDS, 20)
    assert cut.kept == cut.truncated == ()
    ((chunk, detail),) = cut.dropped
    assert chunk.text == TEXT.strip()
    assert "44 tokens" in detail
    assert "20" in detail


def test_truncate_keeps_the_whole_text_and_records_it() -> None:
    cut = apply_length_policy(chunks_of(TEXT), "truncate", WORDS, 20)
    assert [chunk.text for chunk in cut.kept] == [TEXT.strip()]
    assert [chunk for chunk, _ in cut.truncated] == list(cut.kept)
    assert cut.dropped == ()


def test_split_cuts_to_the_limit_with_offsets_in_the_document() -> None:
    cut = chunk_document(Document("d", 0, TEXT), chunker_for(WHOLE, WORDS, 100), "split", WORDS, 20)
    assert len(cut.kept) == 3
    assert all(chunk.n_tokens <= 20 for chunk in cut.kept)
    assert all(TEXT[chunk.char_start : chunk.char_end] == chunk.text for chunk in cut.kept)
    assert " ".join(chunk.text for chunk in cut.kept) == TEXT.strip()
    assert cut.dropped == cut.truncated == ()


def test_split_keeps_the_context_and_counts_it() -> None:
    document = Document("d", 0, TEXT, title="A title")
    cut = chunk_document(document, chunker_for(WHOLE, WORDS, 100), "split", WORDS, 20)
    assert [chunk.context for chunk in cut.kept] == ["A title"] * 3
    assert [chunk.n_tokens for chunk in cut.kept] == WORDS.count([c.embedded for c in cut.kept])
    assert max(chunk.n_tokens for chunk in cut.kept) == 20


def test_error_names_every_chunk_that_is_too_long() -> None:
    cut = apply_length_policy(chunks_of(TEXT), "error", WORDS, 20)
    ((chunk, detail),) = cut.dropped
    assert (chunk.n_tokens, cut.kept) == (44, ()) and "44 tokens" in detail


def test_split_drops_what_cannot_be_cut() -> None:
    tokenizer = LigatureTokenizer()
    cut = chunk_document(
        Document("d", 0, "aﷺb"), chunker_for(WHOLE, tokenizer, 100), "split", tokenizer, 20
    )
    assert [chunk.text for chunk in cut.kept] == ["a", "b"]
    ((_, detail),) = cut.dropped
    assert "22 tokens at characters 1 to 2" in detail


@pytest.mark.parametrize("policy", ["drop", "truncate", "split", "error"])
def test_indexes_are_contiguous_after_the_policy(policy: str) -> None:
    chunks = [
        Chunk(0, "a b", 0, 3, 4),
        Chunk(1, "c " * 29 + "c", 4, 63, 32),
        Chunk(2, "d e", 64, 67, 4),
    ]
    cut = apply_length_policy(chunks, policy, WORDS, 20)  # type: ignore[arg-type]
    assert [chunk.index for chunk in cut.kept] == list(range(len(cut.kept)))
    assert [cut.kept[0].text, cut.kept[-1].text] == ["a b", "d e"]


def test_max_tokens_is_filled_in_from_the_model() -> None:
    assert settled(TokenWindows(), 256).max_tokens == 256
    assert settled(TokenWindows(), 8192).max_tokens == 512
    assert settled(TokenWindows(max_tokens=100), 8192).max_tokens == 100


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (TokenWindows(max_tokens=512), ["chunk.max_tokens 512", "256", "use at most 256"]),
        (TokenWindows(overlap=200), ["chunk.overlap 200", "256", "use at most 128"]),
        (TokenWindows(min_new_tokens=129), ["chunk.min_new_tokens 129", "256"]),
    ],
)
def test_lengths_that_do_not_fit_the_model_are_refused(
    spec: TokenWindows, words: list[str]
) -> None:
    with pytest.raises(UsageError) as caught:
        settled(spec, 256)
    assert all(word in str(caught.value) for word in words)


def test_chunker_for_refuses_an_unresolved_section_and_a_window_without_room() -> None:
    with pytest.raises(UsageError, match="not settled"):
        chunker_for(TokenWindows(), WORDS, 256)
    with pytest.raises(UsageError, match="256"):
        chunker_for(TokenWindows(max_tokens=300), WORDS, 256)

    class Prompted(WordTokenizer):
        n_special = 8

    with pytest.raises(UsageError, match="8 special tokens"):
        chunker_for(TokenWindows(max_tokens=8), Prompted(), 256)
    with pytest.raises(UsageError, match="beside 2 special tokens; use at most 7"):
        chunker_for(TokenWindows(max_tokens=16, min_new_tokens=8), WORDS, 256)


def test_every_length_setting_has_an_effect() -> None:
    text = "word " * 100 + "\n"

    def lengths(**changes: int) -> list[int]:
        spec = TokenWindows(**({"max_tokens": 32} | changes))  # type: ignore[arg-type]
        return [
            chunk.n_tokens for chunk in chunker_for(spec, WORDS, 64).chunk(Document("d", 0, text))
        ]

    assert lengths() == [32, 32, 32, 12]
    assert lengths(max_tokens=52) == [52, 52]
    assert lengths(overlap=10) == [32, 32, 32, 32, 22]
    assert lengths(min_new_tokens=15) == [32, 32, 27, 17]


def test_a_text_longer_than_a_segment_is_counted_by_segments() -> None:
    text = "word " * 100_000
    spans = list(segments(text))
    assert "".join(text[start:end] for start, end in spans) == text
    assert len(spans) > 4
    assert count_tokens(text * 3, WORDS) == 300_002
    assert count_tokens("", WORDS) == 2


def test_a_long_word_is_counted_whole() -> None:
    assert count_tokens("short " + "x" * 3_000_000 + " short", WORDS) == 5
    text = "x" * 20_000_000
    first = next(segments(text, 1_000_000, 8_000_000))
    assert first == (0, 1_000_000), "memory stays bounded"
