"""A text in chunks along its structure: what a splitter of the library sees, within exact limits.

The splitter decides where a text is cut. Offsets, counts, contexts and new text are made certain
here: a piece that turns out too long behind its context is cut like one of ``tokens``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, islice
from typing import Any, Protocol

from embedding_core.chunking.options import LengthOptions, checked_max_tokens
from embedding_core.chunking.structure.sizer import Sizer
from embedding_core.chunking.tokens.boundaries import (
    PARAGRAPH,
    SENTENCE,
    WORD,
    joins,
    last_boundary,
)
from embedding_core.chunking.tokens.context import OVERLAP_SHARE, fitted, in_context
from embedding_core.chunking.tokens.edges import count_spans
from embedding_core.chunking.tokens.new_text import Counted, joined
from embedding_core.chunking.tokens.token_map import SEGMENT_CHARACTERS, TokenMap
from embedding_core.chunking.tokens.windowed import SHORT_CHARACTERS, TokenChunker, stripped
from embedding_core.chunking.tokens.windows import Placer, Window
from embedding_core.protocols import Tokenizer
from embedding_core.records import Chunk, Document

PORTION_CHARACTERS = 200_000
"""Characters that a splitter is given at a time: for each chunk it looks at all that it was given.
"""
PORTION_MARKS = 10_000
"""Marks that a splitter is given at a time. What it looks at is elements: list items, cells, nodes
of a syntax tree. Hardly one begins without a mark, and lists in lists are little but marks."""
MARK = re.compile(r"[^\w\s]")
"""Punctuation or a symbol; a tenth of the characters of Markdown and code."""

MakeSplitter = Callable[[Sizer, int, int], Any]
"""(sizer, capacity, overlap), both in content tokens, to a splitter of the library."""


class Contexts(Protocol):
    """What is embedded before a chunk, by where the chunk starts."""

    def at(self, start: int) -> str | None:
        """The context of a chunk that starts at this character."""
        ...

    def longest(self) -> str | None:
        """The context that leaves the least room."""
        ...


@dataclass(frozen=True, slots=True)
class Everywhere:
    """The same context for all chunks."""

    context: str | None

    def at(self, start: int) -> str | None:
        """See ``Contexts``."""
        return self.context

    def longest(self) -> str | None:
        """See ``Contexts``."""
        return self.context


@dataclass(frozen=True, slots=True)
class Lengths:
    """What chunks of structure are measured by."""

    tokenizer: Tokenizer
    max_tokens: int
    overlap: int
    min_new_tokens: int

    @classmethod
    def of(cls, options: LengthOptions, tokenizer: Tokenizer, limit: int) -> Lengths:
        """The lengths of settled options. Raises ``UsageError`` as ``checked_max_tokens``."""
        max_tokens = checked_max_tokens(options, tokenizer, limit)
        return cls(tokenizer, max_tokens, options.overlap, options.min_new_tokens)

    def title_of(self, document: Document) -> str | None:
        """The document's title, as far as a chunk has room for it."""
        return fitted(document.title, self.tokenizer, self.max_tokens)

    def chunks(self, text: str, make_splitter: MakeSplitter, contexts: Contexts) -> list[Chunk]:
        """The chunks of a text."""
        start, end = stripped(text)
        if start == end:
            return []
        pieces = _Pieces(text, self, contexts)
        counted = pieces.whole(Window(start, end)) or pieces.cut(make_splitter)
        return [
            Chunk(index, text[w.start : w.end], w.start, w.end, n_tokens, contexts.at(w.start))
            for index, (w, n_tokens) in enumerate(counted)
        ]


class _Pieces:
    """One text on its way into chunks."""

    def __init__(self, text: str, lengths: Lengths, contexts: Contexts) -> None:
        self._text = text
        self._lengths = lengths
        self._contexts = contexts
        self._tokenizers: dict[str | None, Tokenizer] = {}

    @cached_property
    def _tokens(self) -> TokenMap:
        return TokenMap.of(self._text, self._lengths.tokenizer)

    def whole(self, window: Window) -> list[Counted]:
        """The text as one chunk if it is so short that it should fit, and does."""
        n_short = min(self._lengths.max_tokens * SHORT_CHARACTERS, SEGMENT_CHARACTERS)
        if window.end - window.start > n_short:
            return []
        text, context = self._text[window.start : window.end], self._contexts.at(window.start)
        (n_tokens,) = self._tokenizer(context).count([text])
        return [(window, n_tokens)] if n_tokens <= self._lengths.max_tokens else []

    def cut(self, make_splitter: MakeSplitter) -> list[Counted]:
        """The chunks along the structure that the splitter sees, within every limit."""
        lengths = self._lengths
        behind = in_context(lengths.tokenizer, self._contexts.longest())
        capacity = max(1, lengths.max_tokens - behind.n_special)
        overlap = min(lengths.overlap, capacity // OVERLAP_SHARE)
        sizer = Sizer(self._text, self._tokens, lengths.tokenizer, capacity)
        splitter = make_splitter(sizer, capacity, overlap)
        windows = self._visible(_indices(splitter, self._text))
        counted = self._fitting(windows)
        placer = Placer(self._text, self._tokens, capacity, overlap, lengths.min_new_tokens)
        return joined(counted, placer, self._count, lengths.max_tokens)

    def _visible(self, pieces: Iterable[tuple[int, str]]) -> list[Window]:
        """The pieces without white space at their ends; none is blank or within another."""
        windows: list[Window] = []
        for at, piece in pieces:
            start, end = stripped(piece)
            if start < end and (not windows or at + end > windows[-1].end):
                windows.append(Window(at + start, at + end))
        return windows

    def _fitting(self, windows: Sequence[Window]) -> list[Counted]:
        """The windows with their counts; those that are too long are cut."""
        counted: list[Counted] = []
        for window, n_tokens in zip(windows, self._count(windows), strict=True):
            if n_tokens <= self._lengths.max_tokens:
                counted.append((window, n_tokens))
            else:
                counted += self._cut_again(window)
        return counted

    def _cut_again(self, window: Window) -> list[Counted]:
        """Windows within one that is too long."""
        lengths, longest = self._lengths, self._contexts.longest()
        chunker = TokenChunker(lengths.tokenizer, lengths.max_tokens, context=longest)
        chunks = chunker.cut(self._text[window.start : window.end])
        shorter = [Window(c.char_start + window.start, c.char_end + window.start) for c in chunks]
        return list(zip(shorter, self._count(shorter), strict=True))

    def _count(self, windows: Sequence[Window]) -> list[int]:
        counts: list[int] = []
        for context, group in groupby(windows, key=lambda window: self._contexts.at(window.start)):
            spans = [(window.start, window.end) for window in group]
            counts += count_spans(self._text, self._tokens, self._tokenizer(context), spans)
        return counts

    def _tokenizer(self, context: str | None) -> Tokenizer:
        """The tokenizer that counts texts behind a context."""
        if context not in self._tokenizers:
            self._tokenizers[context] = in_context(self._lengths.tokenizer, context)
        return self._tokenizers[context]


def _indices(splitter: Any, text: str) -> Iterator[tuple[int, str]]:
    """The splitter's pieces of a text, each with where it starts."""
    for start, end in portions(text, PORTION_CHARACTERS, PORTION_MARKS):
        for at, piece in splitter.chunk_indices(text[start:end]):
            yield start + at, piece


def portions(text: str, n_characters: int, n_marks: int) -> Iterator[tuple[int, int]]:
    """Spans that cover the text, of at most ``n_characters`` and ``n_marks``, cut in their second
    half: at a blank line, else a line end or sentence, else a word, else between characters that do
    not combine."""
    start = 0
    while (end := _furthest(text, start, n_characters, n_marks)) < len(text):
        kinds = (PARAGRAPH, SENTENCE, WORD)
        middle = end - (end - start) // 2
        cuts = (last_boundary(kind, text, middle, end) for kind in kinds)
        cut = next(filter(None, cuts), None)
        if cut is None:
            cut = next((at for at in range(end, start, -1) if not joins(text, at)), end)
        yield start, cut
        start = cut
    yield start, len(text)


def _furthest(text: str, start: int, n_characters: int, n_marks: int) -> int:
    """Where a portion from ``start`` on ends at the latest."""
    end = min(len(text), start + n_characters)
    beyond = next(islice(MARK.finditer(text, start, end), n_marks, None), None)
    return end if beyond is None else beyond.start()
