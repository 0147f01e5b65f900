"""Documents in, chunks out: pieces with exact offsets and token counts.

Knows texts and a tokenizer, not files, vectors or tables. All lengths are in tokens the model
sees, special tokens included.
"""

from embedding_core.chunking.length import LengthResult, Policy, apply_length_policy, chunk_document
from embedding_core.chunking.strategies import chunker_for, settled
from embedding_core.protocols import Tokenizer
from embedding_core.recipe.chunk import Chunker, ChunkStrategy

__all__ = [
    "ChunkStrategy",
    "Chunker",
    "LengthResult",
    "Policy",
    "Tokenizer",
    "apply_length_policy",
    "chunk_document",
    "chunker_for",
    "settled",
]
