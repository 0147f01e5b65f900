"""Strategies that cut along a text's structure, and exact windows of characters."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pydoc_data.topics import topics
from typing import Any

import pytest

from embedding_core.chunking import chunker_for, settled
from embedding_core.chunking.structure import code, pieces
from embedding_core.chunking.structure.outline import Outline
from embedding_core.chunking.structure.pieces import Everywhere, Lengths, portions
from embedding_core.chunking.structure.sentences import text_splitter
from embedding_core.chunking.structure.sizer import Sizer
from embedding_core.chunking.tokens.boundaries import joins
from embedding_core.chunking.tokens.new_text import joined
from embedding_core.chunking.tokens.token_map import TokenMap
from embedding_core.chunking.tokens.windows import Placer, Window
from embedding_core.errors import RejectedInput, UsageError
from embedding_core.recipe.chunk import STRATEGIES
from embedding_core.records import Chunk, Document
from tests.chunking.test_tokens import real_tokenizer
from tests.chunking.tokenizers import EdgeTokenizer, WordTokenizer

WORDS = WordTokenizer()
GUIDE = """Before.

# Guide

Welcome to the guide.

## Install

Words about the installation. Several of them.

### Linux ###

Words about Linux, and more words about it, and still more.

> # no heading of the outline

    # nor this

Upgrade
-------

Words about upgrades, so many that they fill a chunk on their own.

```
# a comment
```
"""


def chunks_of(
    text: str, strategy: str, title: str | None = None, uri: str = "", **options: Any
) -> list[Chunk]:
    section = STRATEGIES.get(strategy).options(strategy=strategy, **options)
    chunker = chunker_for(settled(section, 512), WORDS, 512)
    return list(chunker.chunk(Document("d", 0, text, title=title, uri=uri)))


def test_sentences_end_with_sentences_and_fill_a_chunk() -> None:
    text = "One two three. Four five six! Seven eight nine? Ten eleven twelve."
    chunks = chunks_of(text, "sentences", max_tokens=12)
    assert [chunk.text for chunk in chunks] == [
        "One two three. Four five six!", "Seven eight nine? Ten eleven twelve.",
    ]  # fmt: skip
    assert [chunk.n_tokens for chunk in chunks] == [10, 10]


def test_sentences_overlap_by_whole_sentences() -> None:
    text = " ".join(f"Number {n} is here." for n in range(12))
    chunks = chunks_of(text, "sentences", max_tokens=18, overlap=6)
    for before, after in pairwise(chunks):
        shared = text[after.char_start : before.char_end]
        assert shared.startswith("Number") and shared.endswith("here.")


def test_a_sentence_that_is_too_long_is_cut_between_words() -> None:
    chunks = chunks_of("word " * 50, "sentences", max_tokens=12)
    assert {word for chunk in chunks for word in chunk.text.split()} == {"word"}
    assert all(chunk.n_tokens <= 12 for chunk in chunks)


def test_markdown_context_is_the_path_above_and_the_column_the_path_of_the_section() -> None:
    chunks = chunks_of(GUIDE, "markdown", title="Handbook", max_tokens=24, headings="both")
    by_beginning = {chunk.text.split("\n")[0]: chunk for chunk in chunks}
    linux = by_beginning["### Linux ###"]
    assert linux.context == "Handbook\nGuide > Install"
    assert linux.metadata == {"headings": "Guide > Install > Linux"}
    assert by_beginning["Before."].context == "Handbook"
    assert by_beginning["Before."].metadata == {"headings": None}
    upgrade = next(chunk for chunk in chunks if chunk.text.startswith("Words about upgrades"))
    assert upgrade.context == "Handbook\nGuide > Upgrade"
    assert all(chunk.n_tokens <= 24 for chunk in chunks)


@pytest.mark.parametrize(
    ("headings", "context", "column"),
    [
        ("context", "Guide > Install", None),
        ("column", None, {"headings": "Guide > Install > Linux"}),
        ("none", None, None),
    ],
)
def test_markdown_headings_go_where_the_recipe_says(
    headings: str, context: str | None, column: dict[str, str] | None
) -> None:
    text = GUIDE[: GUIDE.index("> #")]
    chunks = chunks_of(text, "markdown", max_tokens=32, headings=headings)
    linux = next(chunk for chunk in chunks if "about Linux" in chunk.text)
    assert linux.char_start == text.index("### Linux")
    assert (linux.context, dict(linux.metadata)) == (context, column or {})


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_outline_of_any_line_ends(line_end: str) -> None:
    import markdown_it

    text = GUIDE.replace("\n", line_end)
    outline = Outline.of(text, markdown_it)
    assert [heading.path for heading in outline.headings] == [
        ("Guide",), ("Guide", "Install"), ("Guide", "Install", "Linux"), ("Guide", "Upgrade"),
    ]  # fmt: skip
    assert [text[h.start : h.end].split(line_end)[0] for h in outline.headings] == [
        "# Guide", "## Install", "### Linux ###", "Upgrade",
    ]  # fmt: skip


PYTHON = "".join(f'def f{n}(x):\n    """Adds."""\n    return x + {n}\n\n\n' for n in range(8))


def test_code_is_cut_at_definitions_by_the_end_of_the_files_name() -> None:
    chunks = chunks_of(PYTHON, "code", uri="s3://b/a/adds.PY.gz", max_tokens=40)
    assert len(chunks) > 2
    assert all(chunk.text.startswith("def f") for chunk in chunks)
    assert chunks == chunks_of(PYTHON, "code", uri="x.jsonl", language="python", max_tokens=40)


def test_code_of_a_language_that_is_not_known_is_cut_like_sentences() -> None:
    assert code.language_of("/src/Makefile") is None
    assert chunks_of(PYTHON, "code", uri="Makefile", max_tokens=40) == chunks_of(
        PYTHON, "sentences", max_tokens=40
    )


@pytest.mark.parametrize("language", sorted(set(code.LANGUAGES.values())))
def test_every_known_language_has_a_grammar(language: str) -> None:
    assert chunks_of("x = 1\n" * 40, "code", language=language, max_tokens=16)


def without(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    """Let a module be missing, as where its extra is not installed."""
    import sys

    monkeypatch.setitem(sys.modules, module, None)


@pytest.mark.parametrize(
    ("strategy", "module", "extra"),
    [
        ("sentences", "semantic_text_splitter", "chunkers"),
        ("markdown", "semantic_text_splitter", "chunkers"),
        ("markdown", "markdown_it", "chunkers"),
        ("code", "semantic_text_splitter", "chunkers"),
    ],
)
def test_a_missing_library_is_named_with_its_install_line(
    monkeypatch: pytest.MonkeyPatch, strategy: str, module: str, extra: str
) -> None:
    without(monkeypatch, module)
    section = STRATEGIES.get(strategy).options(strategy=strategy)
    for ask in (lambda: settled(section, 512), lambda: chunker_for(section, WORDS, 512)):
        with pytest.raises(UsageError, match=rf"{strategy} needs {module}.*embedlake\[{extra}\]"):
            ask()


def test_a_missing_grammar_rejects_the_file_or_refuses_the_recipe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    without(monkeypatch, "tree_sitter_python")
    with pytest.raises(RejectedInput, match=r"missing_library: .*embedlake\[code\]"):
        chunks_of(PYTHON, "code", uri="a.py")
    with pytest.raises(UsageError, match=r"python needs tree_sitter_python.*embedlake\[code\]"):
        chunks_of(PYTHON, "code", language="python")
    with pytest.raises(UsageError, match="pip install tree-sitter-brainfuck"):
        chunks_of(PYTHON, "code", language="brainfuck")


def test_characters_are_exact_windows() -> None:
    text = "  ab cd\tef\n" * 5
    chunks = chunks_of(text, "characters", max_characters=7, overlap=2)
    assert [chunk.text for chunk in chunks] == [
        text[start : start + 7] for start in range(0, len(text) - 2, 5)
    ]
    assert [len(c.text) for c in chunks[:-1]] == [7] * (len(chunks) - 1)


def test_characters_leave_out_windows_of_white_space_alone() -> None:
    chunks = chunks_of("ab  " + " " * 8 + "cd  ", "characters", max_characters=4)
    assert [(c.text, c.char_start) for c in chunks] == [("ab  ", 0), ("cd  ", 12)]


def test_characters_join_a_last_chunk_that_brings_too_little() -> None:
    text = "one two three four"
    assert [c.text for c in chunks_of(text, "characters", max_characters=14)][-1] == "four"
    (chunk,) = chunks_of(text, "characters", max_characters=14, min_new_tokens=2)
    assert chunk.text == text


PROSE = "\n\n".join(topics[name] for name in sorted(topics))[:40_000]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["words", "edges", "minilm", "bpe"])
def test_sizer_counts_as_the_tokenizer_does(name: str) -> None:
    ours = {"words": WORDS, "edges": EdgeTokenizer()}
    tokenizer = ours[name] if name in ours else real_tokenizer(name)
    sizer = Sizer(PROSE, TokenMap.of(PROSE, tokenizer), tokenizer, 100)
    seen: list[tuple[str, int]] = []

    def watched(piece: str) -> int:
        seen.append((piece, sizer(piece)))
        return seen[-1][1]

    text_splitter(watched, 100, 20).chunk_indices(PROSE)  # type: ignore[arg-type]
    assert len(seen) > 500
    counts = tokenizer.count([piece.strip() for piece, _ in seen])
    exact = [n - tokenizer.n_special for n in counts]
    assert [min(n, 150) for _, n in seen] == [min(n, 150) for n in exact]


def test_a_document_is_tokenised_about_once_however_often_the_splitter_asks() -> None:
    """The library asks for the size of some twenty candidates for each chunk."""
    n_characters = 0

    class Watching(WordTokenizer):
        def offsets(self, texts: Any) -> Any:
            nonlocal n_characters
            n_characters += sum(map(len, texts))
            return super().offsets(texts)

    section = STRATEGIES.get("sentences").options(strategy="sentences", max_tokens=256)
    list(chunker_for(section, Watching(), 512).chunk(Document("d", 0, PROSE)))
    assert n_characters < 3 * len(PROSE)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["sentences", "markdown", "code"])
def test_a_section_of_a_whole_book_is_not_tokenised_for_each_of_its_chunks(strategy: str) -> None:
    n_characters = 0

    class Watching(WordTokenizer):
        def count(self, texts: Any) -> Any:
            nonlocal n_characters
            n_characters += sum(map(len, texts))
            return super().count(texts)

    text = "# Book\n\n" + "\n\n".join(f"## {n}\n\n{topics[n]}" for n in sorted(topics))
    section = STRATEGIES.get(strategy).options(strategy=strategy, max_tokens=128)
    assert len(text) > 300_000
    list(chunker_for(section, Watching(), 512).chunk(Document("d", 0, text, uri="a.py")))
    assert n_characters < 12 * len(text)


def test_boundaries_are_the_librarys_own() -> None:
    """Its own count of the same tokenizer, without special tokens, cuts in the same places."""
    from semantic_text_splitter import TextSplitter

    def content(piece: str) -> int:
        return WORDS.count([piece])[0] - WORDS.n_special

    library = TextSplitter.from_callback(content, 62).chunk_indices(PROSE)
    chunks = chunks_of(PROSE, "sentences", max_tokens=64)
    assert [(c.char_start, c.text) for c in chunks] == [(at, piece) for at, piece in library]


def test_window_that_takes_in_all_of_the_one_before_takes_its_place() -> None:
    words = [f"w{n}" for n in range(20)]
    text = " ".join(words)

    def window(first: int, after: int) -> Window:
        return Window(
            text.index(words[first]), text.index(words[after - 1]) + len(words[after - 1])
        )

    placer = Placer(text, TokenMap.of(text, WORDS), budget=10, overlap=0, min_new_tokens=3)
    windows = [(window(0, 10), 12), (window(7, 12), 7), (window(9, 19), 12)]

    def count(some: Sequence[Window]) -> list[int]:
        return WORDS.count([text[w.start : w.end] for w in some])

    counted = joined(windows, placer, count, max_tokens=12)
    assert counted == [(window(0, 9), 11), (window(9, 19), 12)]


def test_portions_of_a_long_text_cover_it_and_end_at_blank_lines() -> None:
    text = "words here.\nand more.\n\n" * 50 + "x" * 300 + "e\u0301" * 300
    spans = list(portions(text, 200, 1_000))
    assert "".join(text[start:end] for start, end in spans) == text
    assert max(end - start for start, end in spans) <= 200
    assert all(text[:end].endswith("\n\n") for _, end in spans[:5])
    assert not any(joins(text, end) for _, end in spans)
    assert list(portions("short", 200, 1_000)) == [(0, 5)]


def test_splitter_is_given_a_portion_of_a_long_text_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pieces, "PORTION_CHARACTERS", 1_000)
    text = "def f(x):\n    return x\n\n\n" * 200
    given: list[int] = []

    class Watched:
        def __init__(self, *sizes: Any) -> None:
            self._splitter = text_splitter(*sizes)

        def chunk_indices(self, text: str) -> Any:
            given.append(len(text))
            return self._splitter.chunk_indices(text)

    lengths = Lengths(WORDS, max_tokens=32, overlap=4, min_new_tokens=8)
    chunks = lengths.chunks(text, Watched, Everywhere(None))
    assert max(given) <= 1_000 and sum(given) == len(text)
    ends = [0, *(chunk.char_end for chunk in chunks)]
    assert not any(text[e : c.char_start].strip() for e, c in zip(ends, chunks, strict=False))
    assert not text[ends[-1] :].strip()
