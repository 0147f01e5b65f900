"""Counting a window without tokenising all of it again.

Cut out of its document, a window begins and ends in other places for the tokenizer: its first and
last words may have other tokens than in the document. Those between them cannot.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from embedding_core.chunking.tokens.token_map import TokenMap
from embedding_core.protocols import Tokenizer

REACH_CHARACTERS = 300
"""How far from a window's ends a seam is looked for; beyond, all of the window is tokenised."""


@dataclass(frozen=True, slots=True)
class Edges:
    """What has to be tokenised to count a window."""

    text: str
    """The window's ends, up to a seam each, put together; else the whole window."""
    n_between: int
    """Tokens between the two seams."""


def count_spans(
    text: str, tokens: TokenMap, tokenizer: Tokenizer, spans: Sequence[tuple[int, int]]
) -> list[int]:
    """What ``Tokenizer.count`` gives for each span of the text."""
    edges = [_edges(text, tokens, tokenizer.seams, start, end) for start, end in spans]
    counts = tokenizer.count([edge.text for edge in edges])
    return [n_tokens + edge.n_between for n_tokens, edge in zip(counts, edges, strict=True)]


def _edges(
    text: str, tokens: TokenMap, seams: Sequence[re.Pattern[str]], start: int, end: int
) -> Edges:
    for kind in seams:
        match = kind.search(text, start, min(end, start + REACH_CHARACTERS))
        first = match.end() if match else end
        match = _last(kind).match(text, max(first, end - REACH_CHARACTERS), end)
        last = match.end() if match else first
        n_between = tokens.between(first, last)
        if first < last and n_between is not None:
            return Edges(text[start:first] + text[last:end], n_between)
    return Edges(text[start:end], 0)


@lru_cache(maxsize=16)
def _last(kind: re.Pattern[str]) -> re.Pattern[str]:
    """Matches up to the last match of ``kind``: greedy, so that it is looked for from the end."""
    return re.compile(f"(?s:.*)(?:{kind.pattern})", kind.flags)
