"""Which queries a model may be trained on, and which are kept to judge it.

A digest of a query's words decides, so a query stays on its side when more come, on every machine
and for every checkpoint: none is judged by queries that another was trained on.
"""

from __future__ import annotations

from hashlib import blake2b

HELD_OUT = 0.4
"""Share of the queries, or of the documents of known items, that is kept to judge the model."""


def plain(query: str) -> str:
    """A query's words, however they are written."""
    return " ".join(query.casefold().split())


def is_held_out(name: str, seed: int = 0) -> bool:
    """Whether a query's plain words, or a document's id, are kept from the training."""
    return digest(f"{seed} {name}") < HELD_OUT * 2**64


def digest(name: str) -> int:
    """64 bits that the name alone decides."""
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big")
