"""Texts of chosen lengths to measure with, cut from a corpus at the ends of tokens."""

from __future__ import annotations

import random
from collections.abc import Sequence

from embedding_core.errors import ModelError
from embedding_core.protocols import Tokenizer

MIX = "mix"
MIX_MEDIAN, MIX_SPREAD, MIX_RANGE = 300, 0.8, (16, 2_048)
"""Tokens per text of the mix: lognormal, clipped."""


def token_lengths(workload: str, n_tokens: int, max_tokens: int) -> tuple[str, list[int]]:
    """The workload's name and the tokens of each text, about ``n_tokens`` in all, never no text.

    Special tokens count. ``workload`` is ``mix`` or a number of tokens; no text gets more than
    ``max_tokens``, and the name says what it got.
    """
    if workload != MIX:
        length = min(int(workload), max_tokens)
        return str(length), [length] * max(1, n_tokens // length)
    chance, (low, high) = random.Random(0), MIX_RANGE
    lengths: list[int] = []
    while sum(lengths) < n_tokens:
        drawn = round(MIX_MEDIAN * chance.lognormvariate(0, MIX_SPREAD))
        lengths.append(min(max(drawn, low), high, max_tokens))
    return MIX, lengths


def cut_texts(corpus: str, tokenizer: Tokenizer, lengths: Sequence[int]) -> list[str]:
    """A piece of ``corpus`` per length, one after the other, from its start again at its end.

    A piece may tokenise to a token more or less than asked when it stands alone. Raises
    ``ModelError`` for a corpus without a token.
    """
    offsets = tokenizer.offsets([corpus])[0]  # (n_tokens, 2)
    if not len(offsets):
        raise ModelError("the source gave no text to measure with; check source.text")
    needed = max(lengths)
    if len(offsets) < needed:
        return cut_texts(" ".join([corpus] * (needed // len(offsets) + 2)), tokenizer, lengths)
    texts, at = [], 0
    for length in lengths:
        n_content = max(1, length - tokenizer.n_special)
        if at + n_content > len(offsets):
            at = 0
        texts.append(corpus[int(offsets[at][0]) : int(offsets[at + n_content - 1][1])])
        at += n_content
    return texts
