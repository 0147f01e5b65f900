"""The ``tokens`` strategy: coverage, exact offsets, limits, boundaries, on any text."""

from __future__ import annotations

import random
import time
import unicodedata
from functools import cache
from itertools import pairwise
from pydoc_data.topics import topics

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from embedding_core.chunking import Tokenizer
from embedding_core.chunking.tokens.boundaries import joins
from embedding_core.chunking.tokens.windowed import TokenChunker
from embedding_core.records import Chunk
from tests.chunking.tokenizers import (
    EdgeTokenizer,
    LigatureTokenizer,
    WordTokenizer,
    byte_level_bpe,
    minilm,
)

PROSE = "\n\n".join(topics[name] for name in sorted(topics))
WORDS = WordTokenizer()


@cache
def real_tokenizer(name: str) -> Tokenizer:
    return minilm() if name == "minilm" else byte_level_bpe([PROSE[:200_000]])


def assert_sound(text: str, chunks: list[Chunk], max_tokens: int, tokenizer: Tokenizer) -> None:
    """What holds for every text, tokenizer and setting."""
    covered = 0
    for index, chunk in enumerate(chunks):
        assert chunk.index == index
        assert text[chunk.char_start : chunk.char_end] == chunk.text
        assert chunk.text == chunk.text.strip() != ""
        assert not text[covered : chunk.char_start].strip(), "text between chunks is lost"
        assert text[covered : chunk.char_end].strip(), "a chunk is pure overlap"
        assert chunk.n_tokens <= max_tokens or len(chunk.text) == 1
        covered = chunk.char_end
    assert not text[covered:].strip(), "the end of the text is lost"
    assert [chunk.n_tokens for chunk in chunks] == tokenizer.count([c.text for c in chunks])
    starts = [chunk.char_start for chunk in chunks]
    assert starts == sorted(set(starts))


ODD = "word ,.!?\n\r\t\"')…文字。、」カﾞ\u3099é\u0301\u200d👩🏽🇫🇷عربي\x85\u2028\xa0ﷺ"
PIECES = ["alpha", "beta.", "γάμμα", "\n\n", "x" * 60, "-".join("x" * 12), "文" * 30]
TEXTS = st.one_of(
    st.text(st.sampled_from("ab .\n"), max_size=400),
    st.text(st.sampled_from(ODD), max_size=300),
    st.lists(st.sampled_from(PIECES), max_size=120).map(" ".join),
    st.text(max_size=300),
)


@st.composite
def settings_of_chunks(draw: st.DrawFn) -> tuple[int, int, int]:
    max_tokens = draw(st.integers(8, 40))
    overlap = draw(st.integers(0, max_tokens // 2))
    return max_tokens, overlap, draw(st.integers(0, max_tokens // 2 - overlap))


@pytest.mark.slow
@pytest.mark.parametrize("tokenizer", [WORDS, EdgeTokenizer()], ids=["words", "edges"])
@settings(max_examples=300)
@given(text=TEXTS, setting=settings_of_chunks())
def test_chunks_of_any_text_are_sound(
    tokenizer: Tokenizer, text: str, setting: tuple[int, int, int]
) -> None:
    chunks = TokenChunker(tokenizer, *setting).cut(text)
    assert_sound(text, chunks, setting[0], tokenizer)
    assert chunks == TokenChunker(tokenizer, *setting).cut(text)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["minilm", "bpe"])
@settings(max_examples=100)
@example(text="0 \x80\x80\x80\x80\x80", setting=(11, 0, 5))
@example(text="?" + 6 * "\x85" + "\u3099、" + 3 * "\U0001f1eb\U0001f1eb", setting=(30, 15, 0))
@given(text=TEXTS, setting=settings_of_chunks())
def test_chunks_with_real_tokenizers_are_sound(
    name: str, text: str, setting: tuple[int, int, int]
) -> None:
    tokenizer = real_tokenizer(name)
    assert_sound(text, TokenChunker(tokenizer, *setting).cut(text), setting[0], tokenizer)


@settings(max_examples=150)
@given(text=TEXTS, max_tokens=st.integers(8, 40))
def test_chunks_without_overlap_are_disjoint(text: str, max_tokens: int) -> None:
    chunks = TokenChunker(WORDS, max_tokens).cut(text)
    for before, after in pairwise(chunks):
        assert before.char_end <= after.char_start


@pytest.mark.slow
@settings(max_examples=200)
@given(
    words=st.lists(st.sampled_from(["a", "bb", "ccc.", "d\n", "e\n\n"]), min_size=60, max_size=200),
    max_tokens=st.integers(16, 40),
    data=st.data(),
)
def test_every_chunk_brings_new_text_and_nothing_is_cut_inside_a_word(
    words: list[str], max_tokens: int, data: st.DataObject
) -> None:
    half = (max_tokens - WORDS.n_special) // 2
    overlap = data.draw(st.integers(0, half - 1))
    least = data.draw(st.integers(1, half - overlap))
    text = " ".join(words)
    chunks = TokenChunker(WORDS, max_tokens, overlap, least).cut(text)
    assert_sound(text, chunks, max_tokens, WORDS)
    for before, after in pairwise(chunks):
        new = text[max(before.char_end, after.char_start) : after.char_end]
        assert WORDS.count([new])[0] - WORDS.n_special >= least
    whole_words = {word.strip() for word in words}
    assert all(set(chunk.text.split()) <= whole_words for chunk in chunks)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["words", "minilm", "bpe"])
@pytest.mark.parametrize("max_tokens", [64, 256])
def test_a_long_real_text_is_cut_close_to_what_was_asked(name: str, max_tokens: int) -> None:
    tokenizer = WORDS if name == "words" else real_tokenizer(name)
    text, overlap = PROSE[:150_000], max_tokens // 8
    chunks = TokenChunker(tokenizer, max_tokens, overlap, max_tokens // 4).cut(text)
    plain = TokenChunker(tokenizer, max_tokens, overlap).cut(text)
    assert len(chunks) <= len(plain) + 1
    assert_sound(text, chunks, max_tokens, tokenizer)
    lengths = sorted(chunk.n_tokens for chunk in chunks)
    assert lengths[len(lengths) // 2] > 0.7 * max_tokens
    shared = [
        tokenizer.count([text[after.char_start : before.char_end]])[0] - tokenizer.n_special
        for before, after in pairwise(chunks)
    ]
    assert 0.7 * overlap < sorted(shared)[len(shared) // 2] < 1.3 * overlap
    for before, after in pairwise(chunks):
        new = text[max(before.char_end, after.char_start) : after.char_end]
        assert tokenizer.count([new])[0] - tokenizer.n_special >= max_tokens // 4 - 1
    for chunk in chunks:
        word = _word_around(text, chunk.char_start)  # some underlines are longer than a window
        assert chunk.text.startswith(word) or tokenizer.count([word])[0] > max_tokens


def _word_around(text: str, at: int) -> str:
    before, after = text[:at].split(" ")[-1].split("\n")[-1], text[at:].split(maxsplit=1)[0]
    return before + after


@pytest.mark.parametrize(
    "unit",
    [
        "👩🏽‍💻👨‍👩‍👧‍👦 done ",
        "e\u0301a\u0308o\u0302", "漢字かな交じり文です。", "שלום עולם ", "مرحبا بالعالم، ",
        "नमस्ते दुनिया। ", "カ\u3099", "ภาษาไทย",
    ],
    ids=["emoji", "combining", "cjk", "hebrew", "arabic", "devanagari", "kana", "thai"],
)  # fmt: skip
@pytest.mark.parametrize("name", ["minilm", "bpe"])
def test_scripts_are_never_cut_before_a_combining_mark(unit: str, name: str) -> None:
    # WordPiece takes a word of more than 100 characters for one unknown token.
    text = (unit * 6 + " ") * 80 if name == "minilm" else unit * 200
    tokenizer = real_tokenizer(name)
    chunks = TokenChunker(tokenizer, 48, 6).cut(text)
    assert_sound(text, chunks, 48, tokenizer)
    assert len(chunks) > 1
    for chunk in chunks:
        assert not joins(text, chunk.char_start)
        assert not joins(text, chunk.char_end)
        assert not unicodedata.combining(chunk.text[0])


def test_a_paragraph_end_is_preferred_to_a_sentence_end_and_that_to_a_word_end() -> None:
    words = ["w"] * 30
    for breaks, expected in [
        ({23: "w.", 25: "w", 24: "w\n\n"}, 25),
        ({25: "w.", 24: "w,"}, 26),
        ({22: "w\n"}, 23),
        ({}, 28),
    ]:
        marked = [breaks.get(index, word) for index, word in enumerate(words)]
        tokenizer = WordTokenizer()
        chunk = TokenChunker(tokenizer, 30).cut(" ".join(marked))[0]
        assert len(chunk.text.split()) == expected


def test_a_paragraph_end_in_the_last_half_and_a_sentence_end_in_the_last_quarter_is_taken() -> None:
    for words_before, end, expected in [
        (16, "\n\n", 16),
        (12, "\n\n", 28),
        (22, ". ", 22),
        (19, ". ", 27),
    ]:
        text = "w " * (words_before - 1) + "w" + end + "w " * 30
        assert len(TokenChunker(WORDS, 30).cut(text)[0].text.split()) == expected


def test_after_an_edit_the_windows_soon_end_where_they_did() -> None:
    chance = random.Random(0)
    paragraphs = [" ".join([f"p{n}"] * chance.randint(3, 25)) for n in range(400)]
    before = {chunk.text for chunk in TokenChunker(WORDS, 32).cut("\n\n".join(paragraphs))}
    new = []
    for place in range(10, 390, 20):
        edited = paragraphs.copy()
        edited[place] += " and more"
        after = TokenChunker(WORDS, 32).cut("\n\n".join(edited))
        new.append(sum(chunk.text not in before for chunk in after))
    assert sorted(new)[len(new) // 2] == 1
    assert max(new) < 10


def test_a_word_that_fits_a_window_is_kept_whole_even_if_the_chunk_before_it_is_short() -> None:
    word = "-".join("x" * 12)  # 23 tokens
    text = f"one two three {word} four"
    chunks = TokenChunker(WORDS, 26).cut(text)
    assert [chunk.text for chunk in chunks] == ["one two three", f"{word} four"]


def test_a_word_longer_than_a_window_is_cut_between_tokens() -> None:
    text = "-".join(["xx"] * 100)
    chunks = TokenChunker(WORDS, 20, 4).cut(text)
    assert_sound(text, chunks, 20, WORDS)
    assert all(chunk.text.strip("-").split("-")[0] == "xx" for chunk in chunks)


def test_a_single_character_above_the_limit_is_a_chunk_of_its_own() -> None:
    chunks = TokenChunker(LigatureTokenizer(), 10).cut("ab ﷺ cd")
    assert [(chunk.text, chunk.n_tokens) for chunk in chunks] == [("ab", 4), ("ﷺ", 22), ("cd", 4)]


def test_white_space_around_a_document_is_not_in_its_chunk() -> None:
    (chunk,) = TokenChunker(WORDS, 20).cut("\n\u2003 two words \t\n")
    assert (chunk.text, chunk.char_start, chunk.char_end) == ("two words", 3, 12)
    assert chunk.n_tokens == 4


@pytest.mark.parametrize("text", ["", " ", "\n\t\u2003"])
def test_a_blank_text_has_no_chunks(text: str) -> None:
    assert TokenChunker(WORDS, 20).cut(text) == []


def test_a_text_without_any_token_is_one_chunk() -> None:
    text = "\u0300\u0301 \u0302" * 10  # the tokenizer below drops marks
    (chunk,) = TokenChunker(real_tokenizer("minilm"), 20).cut(text)
    assert (chunk.text, chunk.n_tokens) == (text, 2)


@pytest.mark.parametrize(
    "unit",
    ["word ", "x", "a,", ".", "'", "文", " \n", "a\n", "e\u0301", "\u200d", ". ", "\"' "],
)
@pytest.mark.slow
def test_time_is_linear_in_the_text(unit: str) -> None:
    chunker = TokenChunker(WORDS, 128, 32, 32)

    def seconds(n_characters: int) -> float:
        """The least of three turns: what else runs on the machine only ever adds."""
        text = "s" + unit * (n_characters // len(unit)) + "e"
        turns = []
        for _ in range(3):
            started = time.process_time()
            chunks = chunker.cut(text)
            turns.append(time.process_time() - started)
        assert_sound(text, chunks, 128, WORDS)
        return min(turns)

    short, long = seconds(50_000), seconds(200_000)
    assert long < 10 * max(short, 0.01)


@pytest.mark.slow
def test_five_megabytes_take_seconds() -> None:
    text = (PROSE * 12)[:5_000_000]
    started = time.process_time()
    chunks = TokenChunker(WORDS, 512, 51, 32).cut(text)
    assert time.process_time() - started < 30
    assert chunks[-1].char_end == len(text.rstrip())


@pytest.mark.slow
def test_a_long_text_is_given_to_the_tokenizer_in_segments() -> None:
    longest = 0

    class Watching(WordTokenizer):
        def offsets(self, texts):  # type: ignore[no-untyped-def]
            nonlocal longest
            longest = max(longest, sum(map(len, texts)))
            return super().offsets(texts)

    text = "word " * 300_000
    chunks = TokenChunker(Watching(), 64).cut(text)
    assert longest <= 200_000
    assert len(chunks) == -(-300_000 // 62)
