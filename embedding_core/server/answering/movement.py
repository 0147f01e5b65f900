"""What moved between the hits of two spaces."""

from __future__ import annotations

from collections.abc import Sequence

from embedding_core.server.answering.messages import Found, Moved, Movement


def moved(first: Sequence[Found], second: Sequence[Found]) -> tuple[list[Moved], list[Moved]]:
    """A line for each hit of both sides; movements are seen from the first to the second."""
    ranks = tuple({hit.chunk_id: hit.rank for hit in hits} for hits in (first, second))
    return (
        [_moved(hit.chunk_id, ranks[0], ranks[1]) for hit in first],
        [_moved(hit.chunk_id, ranks[0], ranks[1], seen_from_second=True) for hit in second],
    )


def _moved(
    chunk_id: str,
    first: dict[str, int],
    second: dict[str, int],
    seen_from_second: bool = False,
) -> Moved:
    before, after = first.get(chunk_id), second.get(chunk_id)
    here, there = (after, before) if seen_from_second else (before, after)
    assert here is not None
    return Moved(chunk_id, here, there, _movement(before, after))


def _movement(before: int | None, after: int | None) -> Movement:
    if before is None or after is None:
        return "only here"
    if before == after:
        return "same"
    return "up" if after < before else "down"
