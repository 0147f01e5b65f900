"""The batcher: texts in, unit vectors out, for a checkpoint or the built-in hashing encoder.

Importing this package loads neither torch nor transformers; ``Encoder.load`` does.
"""

from embedding_core.encoder.base import (
    FAILURES,
    Encoded,
    Encoder,
    InvalidText,
    NonFiniteVectors,
    TextsWithoutVector,
    TooLargeForMemory,
)
from embedding_core.encoder.engines import ModelInfo, describe_model, load_model, model_spec
from embedding_core.encoder.parity import check_parity, parity_vectors
from embedding_core.protocols import Kind, Tokenizer

__all__ = [
    "FAILURES",
    "Encoded",
    "Encoder",
    "InvalidText",
    "Kind",
    "ModelInfo",
    "NonFiniteVectors",
    "TextsWithoutVector",
    "Tokenizer",
    "TooLargeForMemory",
    "check_parity",
    "describe_model",
    "load_model",
    "model_spec",
    "parity_vectors",
]
