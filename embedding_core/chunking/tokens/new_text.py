"""Windows that bring too little new text are joined to the one before them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from embedding_core.chunking.tokens.boundaries import SENTENCE, WORD, joins, last_boundary
from embedding_core.chunking.tokens.windows import Placer, Window

Counted = tuple[Window, int]
"""A window and its tokens, special tokens included."""
Count = Callable[[Sequence[Window]], list[int]]

SENTENCE_SHARE = 4
"""Text is moved from a sentence on where that is at most 1/n of a window more than is needed."""


def joined(
    counted: Sequence[Counted], placer: Placer, count: Count, max_tokens: int
) -> list[Counted]:
    """The windows, each after the first with ``min_new_tokens`` that the one before it lacks.

    A window with fewer becomes one with its predecessor. Where that would be longer than
    ``max_tokens``, the predecessor ends earlier, and the window begins there. A window that takes
    in all of its predecessor takes its place.
    """
    if not placer.min_new_tokens:
        return list(counted)
    kept: list[Counted] = []
    for window, n_tokens in counted:
        while kept and window.start <= kept[-1][0].start:
            kept.pop()
        if not kept or _new_tokens(placer, kept[-1][0], window) >= placer.min_new_tokens:
            kept.append((window, n_tokens))
            continue
        previous, _ = kept[-1]
        together = Window(previous.start, window.end)
        (n_together,) = count([together])
        if n_together <= max_tokens:
            kept[-1] = together, n_together
            continue
        before = kept[-2][0] if len(kept) > 1 else None
        for pair in _moved(placer, before, previous, window):
            counts = count(pair)
            if max(counts) <= max_tokens:
                kept[-1:] = list(zip(pair, counts, strict=True))
                break
        else:
            kept.append((window, n_tokens))
    return kept


def _new_tokens(placer: Placer, previous: Window | None, window: Window) -> int:
    fresh = max(placer.fresh_after(previous), window.start)
    return placer.planned(Window(fresh, window.end)) if fresh < window.end else 0


def _moved(
    placer: Placer, before: Window | None, previous: Window, window: Window
) -> Iterator[tuple[Window, Window]]:
    """Two windows over the text of ``previous`` and ``window``, the best cut between them first."""
    tokens = placer.tokens
    enough = tokens.first_after(window.end - 1) + 1 - placer.min_new_tokens
    first = max(placer.fresh_after(before), previous.start)
    low = min(tokens.first_after(first) + placer.min_new_tokens, len(tokens) - 1)
    if enough < low:
        return
    near = max(low, enough - placer.budget // SENTENCE_SHARE)
    latest = placer.skip_space(tokens.start(enough))
    cuts = [
        last_boundary(SENTENCE, placer.text, tokens.start(near), latest),
        last_boundary(WORD, placer.text, tokens.start(low), latest),
        _token_boundary(placer, low, enough),
    ]
    for cut in cuts:
        if cut is not None and previous.start < cut < window.end:
            shorter = Window(previous.start, placer.trim(previous.start, cut))
            fresh = placer.fresh_after(shorter)
            yield shorter, Window(placer.overlapping(shorter, fresh), window.end)
            yield shorter, Window(fresh, window.end)


def _token_boundary(placer: Placer, low: int, latest: int) -> int | None:
    """Where a word that is longer than a window is cut."""
    starts = (placer.tokens.start(token) for token in range(latest, low - 1, -1))
    return next((at for at in starts if not joins(placer.text, at)), None)
