"""The batcher: texts in, unit vectors out, for a checkpoint or the built-in hashing encoder.

Importing this package loads neither torch nor transformers; ``Encoder.load`` does.
"""

from embedding_core.encoder.base import Encoded, Encoder, Kind, NonFiniteVectors, Tokenizer
from embedding_core.encoder.resolve import ResolvedModel, resolve_model

__all__ = [
    "Encoded",
    "Encoder",
    "Kind",
    "NonFiniteVectors",
    "ResolvedModel",
    "Tokenizer",
    "resolve_model",
]
