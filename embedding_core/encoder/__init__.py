"""The batcher: texts in, unit vectors out, for a checkpoint or the built-in hashing encoder.

Importing this package loads neither torch nor transformers; ``Encoder.load`` does.
"""

from embedding_core.encoder.base import (
    FAILURES,
    Encoded,
    Encoder,
    InvalidText,
    Kind,
    NonFiniteVectors,
    TextsWithoutVector,
    Tokenizer,
    TooLargeForMemory,
)
from embedding_core.encoder.parity import check_parity, parity_vectors
from embedding_core.encoder.resolve import ResolvedModel, resolve_model

__all__ = [
    "FAILURES",
    "Encoded",
    "Encoder",
    "InvalidText",
    "Kind",
    "NonFiniteVectors",
    "ResolvedModel",
    "TextsWithoutVector",
    "Tokenizer",
    "TooLargeForMemory",
    "check_parity",
    "parity_vectors",
    "resolve_model",
]
