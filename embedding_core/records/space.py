"""The space that vectors are in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

NORM_TOLERANCE = 5e-3
"""A unit vector rounded to float16 keeps its length to about 5e-4; ten times that is wrong."""


@dataclass(frozen=True, slots=True)
class Space:
    """What decides whether two vectors may be compared. Its digest is the ``space_id``."""

    model: str
    """Name for people, the adapter's included; not part of the digest."""
    revision: str | None
    """A hub model's commit, the folder that ``latest`` stood for, or the fingerprint of a server's
    vectors; not part of the digest."""
    identity: tuple[str, ...]
    """Digests that tell the model from all others, sorted. A checkpoint has the SHA-256 of every
    weight file, of its config and of what an adapter adds; an endpoint has the id of its model and
    the fingerprint that was recorded of its vectors."""
    tokenizer: str
    """SHA-256 of the tokenizer file."""
    pooling: str
    """``mean``, ``cls`` or ``last``; ``server`` for what a server does."""
    query_prompt: str
    """Text put in front of a query."""
    document_prompt: str
    """Text put in front of a document."""
    max_tokens: int
    """Longest input in tokens, special tokens included."""
    dim: int
    """Length of a vector, which has unit norm."""
    dtype_class: Literal["half", "full", "fp8"]
    """``half``: computed in fp16 or bf16 (or fp32 where that is faster); ``full``: fp32; ``fp8``:
    matrices in fp8, the rest in bf16."""
