"""Marks are where a reader would look for the words of a query."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding_core.server.answering.highlights import MOST_MARKS, Highlighter, snippet_of


def marked(query: str, text: str) -> list[str]:
    return [text[start:end] for start, end in Highlighter(query).marks(text)]


@pytest.mark.parametrize(
    ("query", "text", "expected"),
    [
        ("how to catch exceptions", "Catching an exception is it", ["Catching", "exception"]),
        ("the is a", "the cat is a cat", ["the", "is", "a"]),
        ("cat", "concatenate the cat", ["cat"]),
        ("ÜBER", "über dem Fluss", ["über"]),
        ("classes", "the class of a classification", ["class"]),
        ("光合作用", "植物的光合作用很重要", ["光合作用"]),
        ("API接口", "the api接口 is an api", ["api接口"]),
        ("api", "die api接口", ["api"]),
        ("catching", "catch it, catchings, catches, cat", ["catch", "catchings"]),
        ("station", "a statue of stations", ["stations"]),
        ("a.b(c)*", "a.b(c)* and c", ["b", "c", "c"]),
        ("", "nothing", []),
        ("words", "", []),
    ],
)  # fmt: skip
def test_marks_are_the_words_of_the_query(query: str, text: str, expected: list[str]) -> None:
    assert marked(query, text) == expected


@given(st.text(max_size=80), st.text(max_size=2_000))
def test_marks_lie_in_the_text_in_order_and_apart(query: str, text: str) -> None:
    marks = Highlighter(query).marks(text)
    ends = [0, *(end for _, end in marks)]
    assert all(
        end <= start < stop <= len(text) for end, (start, stop) in zip(ends, marks, strict=False)
    )
    begin, end = snippet_of(text, marks)
    assert 0 <= begin <= end <= len(text)


def test_marks_are_bounded() -> None:
    assert len(Highlighter("word").marks("word " * 10_000)) == MOST_MARKS


def calls_of(work: Callable[[], object]) -> int:
    """Calls of functions that some work makes: its cost, whatever the machine does besides."""
    calls: list[str] = []
    sys.setprofile(lambda _frame, event, _argument: calls.append(event))
    try:
        work()
    finally:
        sys.setprofile(None)
    return len(calls)


def test_query_of_many_words_costs_little_more_than_its_words() -> None:
    query = " ".join(f"word{number}s" for number in range(200))
    assert calls_of(lambda: Highlighter(query)) < 20 * 200
    assert marked(query, "word7 and word199s, sword7s") == ["word7", "word199s"]


def test_snippet_is_where_most_marks_are() -> None:
    text = "filler " * 200 + "the walrus and the seal" + " filler" * 200
    begin, end = snippet_of(text, Highlighter("walrus seal").marks(text))
    assert "walrus and the seal" in text[begin:end] and end - begin < 500
    assert text[begin - 1] == " " and not text[begin].isspace()
