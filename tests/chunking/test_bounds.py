"""What an odd document makes of a chunker's work and rows has a bound."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from embedding_core.chunking import chunker_for, settled
from embedding_core.chunking.structure import pieces
from embedding_core.chunking.structure.code import MOST_NESTED, is_nested_deep
from embedding_core.chunking.structure.markdown import markdown_splitter
from embedding_core.chunking.structure.outline import HEADING_CHARACTERS
from embedding_core.chunking.structure.pieces import Everywhere, Lengths, portions
from embedding_core.chunking.tokens.context import CHARACTERS_PER_TOKEN, fitted
from embedding_core.recipe.chunk import STRATEGIES
from embedding_core.records import Chunk, Document
from tests.chunking.tokenizers import WordTokenizer

SENTENCE = "The model reads words of a text and gives a vector. "


class Watching(WordTokenizer):
    """Counts the characters that it was given."""

    def __init__(self) -> None:
        self.n_characters = 0

    def offsets(self, texts: Sequence[str]) -> list[np.ndarray]:
        self.n_characters += sum(map(len, texts))
        return super().offsets(texts)


def chunks_of(
    text: str, tokenizer: WordTokenizer, title: str | None = None, **options: Any
) -> list[Chunk]:
    section = STRATEGIES.get(options["strategy"]).options(**options)
    chunker = chunker_for(settled(section, 512), tokenizer, 512)
    return list(chunker.chunk(Document("d", 0, text, title=title, uri="a.txt")))


@pytest.mark.parametrize("overlap", [24, 31, 32])
@pytest.mark.parametrize("strategy", ["tokens", "sentences", "markdown", "code"])
def test_overlap_behind_a_long_context_leaves_room_for_new_text(
    strategy: str, overlap: int
) -> None:
    tokenizer, text = WordTokenizer(), SENTENCE * 100
    title = "words of a title " * 20
    chunks = chunks_of(text, tokenizer, title, strategy=strategy, max_tokens=64, overlap=overlap)
    (n_tokens,) = tokenizer.count([text])
    assert all(len(tokenizer.offsets([chunk.context or ""])[0]) == 31 for chunk in chunks)
    assert sum(chunk.n_tokens for chunk in chunks) < 6 * n_tokens  # half context, half overlap
    assert all(chunk.n_tokens <= 64 for chunk in chunks)


@pytest.mark.parametrize("is_title", [True, False])
def test_a_long_title_or_heading_is_not_tokenised_for_each_heading_below_it(is_title: bool) -> None:
    tokenizer, long = Watching(), "words of a book " * 1_000
    sections = "".join(f"## Part {n}\n\nWords of part {n}.\n\n" for n in range(100))
    text, title = (sections, long) if is_title else (f"# {long}\n\n{sections}", None)
    chunks = chunks_of(text, tokenizer, title, strategy="markdown", max_tokens=32)
    assert "words of a book" in (chunks[-1].context or "")
    assert tokenizer.n_characters < 10 * (len(text) + len(long))


def test_a_long_heading_is_kept_in_part_in_the_column_and_in_the_context() -> None:
    text = f"# {'x' * 10_000}\n\n## Part\n\n" + SENTENCE * 20
    chunks = chunks_of(text, WordTokenizer(), strategy="markdown", max_tokens=40, headings="both")
    assert chunks[-1].metadata["headings"] == f"{'x' * HEADING_CHARACTERS} > Part"
    assert chunks[-1].context == f"{'x' * HEADING_CHARACTERS} > Part"


def test_a_title_of_a_single_long_word_is_kept_in_part() -> None:
    chunks = chunks_of(SENTENCE * 20, WordTokenizer(), "x" * 10_000, strategy="tokens")
    assert {len(chunk.context or "") for chunk in chunks} == {255 * CHARACTERS_PER_TOKEN}
    n_characters = 5 * CHARACTERS_PER_TOKEN
    accented = "x" * (n_characters - 1) + "e\u0301 and more"
    assert fitted(accented, WordTokenizer(), 12) == "x" * (n_characters - 1)


@pytest.mark.parametrize("title", ["A title", "\u200b"])
def test_a_model_without_room_for_a_context_gets_none(title: str) -> None:
    assert fitted(title, WordTokenizer(), 0) is None


def test_an_empty_heading_leaves_the_path_above_it_as_it_is() -> None:
    words = SENTENCE * 2
    text = f"# Guide\n\n{words}\n\n##\n\n{SENTENCE}\n\n### Linux\n\n{words}"
    chunks = chunks_of(text, WordTokenizer(), strategy="markdown", max_tokens=32, headings="both")
    empty = next(chunk for chunk in chunks if "##\n" in chunk.text)
    assert (empty.context, empty.metadata["headings"]) == ("Guide", "Guide")
    assert chunks[-1].metadata["headings"] == "Guide > Linux"


NESTED = {
    "a line": ("- " * 600 + "x\n") * 30,
    "indented": "".join("  " * depth + f"- item {depth}\n" for depth in range(200)),
    "numbered": ("1. " * 600 + "x\n") * 20,
    "cells": "| 1 | 2 | 3 |\n" * 2_000,
}


@pytest.mark.parametrize("text", NESTED.values(), ids=NESTED)
def test_splitter_is_given_few_marks_at_a_time(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """For each chunk it looks at every element, so that its work is elements times chunks."""
    monkeypatch.setattr(pieces, "PORTION_MARKS", 200)
    marks: list[int] = []

    class Watched:
        def __init__(self, *sizes: Any) -> None:
            self._splitter = markdown_splitter(*sizes)

        def chunk_indices(self, text: str) -> Any:
            marks.append(len(pieces.MARK.findall(text)))
            return self._splitter.chunk_indices(text)

    lengths = Lengths(WordTokenizer(), max_tokens=32, overlap=4, min_new_tokens=0)
    chunks = lengths.chunks(text, Watched, Everywhere(None))
    assert max(marks) <= 200 and sum(marks) == len(pieces.MARK.findall(text))
    ends = [0, *(chunk.char_end for chunk in chunks)]
    assert not any(text[e : c.char_start].strip() for e, c in zip(ends, chunks, strict=False))


@pytest.mark.parametrize("is_deep", [True, False])
def test_code_of_brackets_in_brackets_is_cut_like_text(is_deep: bool) -> None:
    """By its syntax tree each chunk would be a bracket."""
    depth = MOST_NESTED + 1 if is_deep else MOST_NESTED
    text = f"x = {'[' * depth}1{']' * depth}\n"
    assert is_nested_deep(text) is is_deep
    section = {"strategy": "code", "language": "python", "max_tokens": 32}
    if is_deep:
        chunks = chunks_of(text * 20, WordTokenizer(), **section)
        assert len(chunks) < 200
    assert not is_nested_deep("f(x)]]]\n" * 1_000)
    assert not is_nested_deep('    write("(")\n' * 1_000), "brackets in strings"
    assert is_nested_deep("[\n" * 1_000)


def test_portions_end_at_a_line_before_they_have_too_many_marks() -> None:
    text = "- a - b\n" * 50
    spans = list(portions(text, 200, 7))
    assert "".join(text[start:end] for start, end in spans) == text
    assert {end - start for start, end in spans[:-1]} == {24}
    assert list(portions("-" * 10, 200, 1)) == [(n, n + 1) for n in range(10)]
