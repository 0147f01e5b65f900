"""What every chunker promises, with every tokenizer: exact offsets, nothing lost, limits kept."""

from __future__ import annotations

from itertools import pairwise
from pydoc_data.topics import topics
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from embedding_core.chunking import (
    Policy,
    Tokenizer,
    apply_length_policy,
    chunker_for,
    settled,
)
from embedding_core.recipe.chunk import STRATEGIES, ChunkOptions
from embedding_core.records import Chunk, Document
from tests.chunking.tokenizers import WordTokenizer
from tests.models import describe

pytestmark = pytest.mark.slow

TEXTS = {
    "prose": topics["exceptions"],
    "code": topics["class"],
    "one word": "word",
    "surrounded by space": "\n\n  some words between blanks \t\n",
    "mixed scripts": "naïve 中文字符没有空格 👩‍👩‍👧 e\u0301clair مرحبا بالعالم " * 20,
    "no space at all": "x" * 3_000,
    "one word of 5,000 characters": "a" * 2_500 + "é" * 2_500,
    "emoji": "👩🏽‍💻👨‍👩‍👧‍👦🇫🇷❤️ done " * 60,
    "combining marks": "e\u0301a\u0308o\u0302 \u0301 n\u0303" * 80,
    "Devanagari": "नमस्ते दुनिया। यह क्षत्रिय वाक्य है। " * 30,
    "Japanese": "漢字かな交じり文です。「そうですか？」カ\u3099、ラーメン。" * 30,
    "CRLF": "# Guide\r\n\r\nWords.\r\nMore words.\r\n\r\n## Install\r\n\r\n- a\r\n- b\r\n" * 12,
    "blank": " \n\t\r\n\u2003\x85 ",
    "astral planes": "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𒀀𒁀 🀄𠀀𠀁。𐍈 " * 40,
    "Markdown": "Intro.\n\n# A\n\n" + "Words of A. " * 40 + "\n\n## B\n\n" + "- item\n" * 60
    + "\n```python\nx = 1\n```\n\nC\n===\n\n" + "Words of C. " * 30,
}  # fmt: skip
LIMIT = 48


@pytest.fixture(params=["words", "hashing", "minilm", "tiny_qwen3"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    if request.param == "words":
        return WordTokenizer()
    name = request.param
    return describe(name if name == "hashing" else str(request.getfixturevalue(name))).tokenizer


LENGTHS = {"max_tokens": LIMIT, "overlap": 8, "min_new_tokens": 12}
SETTINGS: dict[str, dict[str, Any]] = {
    "tokens": LENGTHS,
    "sentences": LENGTHS,
    "markdown": LENGTHS | {"headings": "both"},
    "code": LENGTHS | {"language": "python"},
    "characters": {"max_characters": 60, "overlap": 10, "min_new_tokens": 3},
    "none": {},
}
"""Options of each strategy."""
KEEPS_THE_LIMIT = {"tokens", "sentences", "markdown", "code"}


def spec_of(name: str, **changes: Any) -> ChunkOptions:
    section = {"strategy": name} | SETTINGS[name] | changes
    options: ChunkOptions = STRATEGIES.get(name).options.model_validate(section)
    return settled(options, LIMIT)


@pytest.fixture(params=list(STRATEGIES.working()))
def spec(request: pytest.FixtureRequest) -> ChunkOptions:
    return spec_of(request.param)


def cut(
    spec: ChunkOptions, tokenizer: Tokenizer, text: str, title: str | None = None
) -> list[Chunk]:
    document = Document("d", 0, text, title=title, uri="file.py")
    return list(chunker_for(spec, tokenizer, LIMIT).chunk(document))


def assert_sound(spec: ChunkOptions, tokenizer: Tokenizer, text: str, chunks: list[Chunk]) -> None:
    """Coverage, order, offsets, counts and budget."""
    assert [chunk.index for chunk in chunks] == list(range(len(chunks)))
    covered = 0
    for chunk in chunks:
        assert text[chunk.char_start : chunk.char_end] == chunk.text
        assert not text[covered : chunk.char_start].strip(), "text between chunks is lost"
        assert text[covered : chunk.char_end].strip(), "a chunk brings nothing"
        covered = chunk.char_end
        if spec.strategy != "characters":
            assert chunk.text == chunk.text.strip()
        if spec.strategy in KEEPS_THE_LIMIT:
            assert chunk.n_tokens <= LIMIT or len(chunk.text) == 1
    assert not text[covered:].strip(), "the end of the text is lost"
    assert all(before.char_start < after.char_start for before, after in pairwise(chunks))
    assert [c.n_tokens for c in chunks] == tokenizer.count([c.embedded for c in chunks])
    assert all(chunk.metadata.keys() == spec.columns.keys() for chunk in chunks)


def test_a_strategy_is_registered_under_the_name_of_its_section(spec: ChunkOptions) -> None:
    assert type(spec) is STRATEGIES.get(spec.strategy).options
    assert "tokenizer" not in spec.hashed() and spec.hashed()["strategy"] == spec.strategy
    assert settled(spec, LIMIT) == spec


@pytest.mark.parametrize("title", [None, "A title"])
@pytest.mark.parametrize("name", TEXTS)
def test_chunks_are_sound_and_the_same_every_time(
    tokenizer: Tokenizer, spec: ChunkOptions, name: str, title: str | None
) -> None:
    text = TEXTS[name]
    chunks = cut(spec, tokenizer, text, title)
    assert_sound(spec, tokenizer, text, chunks)
    assert chunks == cut(spec, tokenizer, text, title)
    assert bool(chunks) == bool(text.strip())


ODD = "word ,.!?\n\r\t\"')#*`…文字。、」カﾞ\u3099é\u0301\u200d👩🏽🇫🇷عربيक्षि\x85\u2028\x1c\xa0ﷺ𠀀"
PIECES = ["alpha", "beta.", "γάμμα", "\n\n", "# One", "\n## Two\n", "- x\n", "```\n", "x" * 60,
          "def f():\n    return 1\n", "文" * 30, "\r\n", "\r", "क्षि।", "👨‍👩‍👧‍👦"]  # fmt: skip
TEXT = st.one_of(
    st.text(st.sampled_from(ODD), max_size=300),
    st.lists(st.sampled_from(PIECES), max_size=120).map(" ".join),
    st.lists(st.sampled_from(PIECES), max_size=120).map("".join),
    st.text(max_size=300),
)


@pytest.mark.parametrize("name", list(STRATEGIES.working()))
@settings(max_examples=150)
@example(text="\x1c# a\x1c", title="# a", changes={})
@given(
    text=TEXT,
    title=st.none() | st.text(min_size=1, max_size=60).map(str.strip).filter(bool),
    changes=st.fixed_dictionaries({"overlap": st.integers(0, 11)}),
)
def test_chunks_of_any_text_are_sound(
    name: str, text: str, title: str | None, changes: dict[str, int]
) -> None:
    words, spec = WordTokenizer(), spec_of(name, **(changes if SETTINGS[name] else {}))
    assert_sound(spec, words, text, cut(spec, words, text, title))


@pytest.mark.parametrize("overlap", [0, 8])
@pytest.mark.parametrize("name", ["prose", "code", "Markdown", "CRLF", "Devanagari", "emoji"])
def test_a_chunk_brings_min_new_tokens_or_is_joined_to_the_one_before(
    spec: ChunkOptions, name: str, overlap: int
) -> None:
    if not hasattr(spec, "min_new_tokens"):
        pytest.skip("a document is one chunk")
    words, text = WordTokenizer(), TEXTS[name]
    least = spec.min_new_tokens
    chunks = cut(spec_of(spec.strategy, overlap=overlap), words, text)
    for before, after in pairwise(chunks):
        new = text[max(before.char_end, after.char_start) : after.char_end]
        assert words.count([new])[0] - words.n_special >= least, new
    plain = cut(spec_of(spec.strategy, overlap=overlap, min_new_tokens=0), words, text)
    assert len(chunks) <= len(plain)


def test_a_title_is_embedded_with_every_chunk_and_no_part_of_its_text(
    tokenizer: Tokenizer, spec: ChunkOptions
) -> None:
    text = TEXTS["Markdown"]
    plain, titled = cut(spec, tokenizer, text), cut(spec, tokenizer, text, "Some title")
    assert all("Some title" not in chunk.text for chunk in titled)
    assert all((chunk.context or "").startswith("Some title") for chunk in titled)
    assert all(chunk.embedded.endswith(chunk.text) for chunk in titled)
    assert titled[0].n_tokens > tokenizer.count([titled[0].text])[0]
    assert len(titled) >= len(plain)


def test_a_title_that_leaves_no_room_is_embedded_as_far_as_half_a_chunk(
    tokenizer: Tokenizer, spec: ChunkOptions
) -> None:
    title = "long " * 200
    chunks = cut(spec, tokenizer, TEXTS["prose"], title.strip())
    assert_sound(spec, tokenizer, TEXTS["prose"], chunks)
    assert all(chunk.context and title.startswith(chunk.context) for chunk in chunks)
    assert all(len(chunk.context or "") < 5 * LIMIT for chunk in chunks)


@pytest.mark.parametrize("name", TEXTS)
def test_apply_length_policy_every_chunk_is_kept_or_named(
    tokenizer: Tokenizer, spec: ChunkOptions, name: str
) -> None:
    chunks = cut(spec, tokenizer, TEXTS[name], "A title")
    too_long = any(chunk.n_tokens > LIMIT for chunk in chunks)
    policies: tuple[Policy, ...] = ("drop", "truncate", "split", "error")
    for policy in policies:
        result = apply_length_policy(chunks, policy, tokenizer, LIMIT)
        kept = result.kept
        assert [chunk.index for chunk in kept] == list(range(len(kept)))
        assert [c.n_tokens for c in kept] == tokenizer.count([c.embedded for c in kept])
        assert all(TEXTS[name][c.char_start : c.char_end] == c.text for c in kept)
        if policy == "truncate":
            assert len(kept) == len(chunks) and not result.dropped
            assert all(chunk.n_tokens > LIMIT and detail for chunk, detail in result.truncated)
        else:
            assert not result.truncated
            assert all(chunk.n_tokens <= LIMIT for chunk in kept)
            assert bool(result.dropped) == (policy in ("drop", "error") and too_long)
