"""Documents in, chunks out: pieces with exact offsets and token counts.

Knows texts and a tokenizer, not files, vectors or tables. All lengths are in tokens the model
sees, special tokens included.
"""

from embedding_core.chunking.chunker import Chunker, Tokenizer
from embedding_core.chunking.length import Cut, Policy, apply_length_policy, chunk_document
from embedding_core.chunking.strategies import chunker_for, resolve_chunk_spec

__all__ = [
    "Chunker",
    "Cut",
    "Policy",
    "Tokenizer",
    "apply_length_policy",
    "chunk_document",
    "chunker_for",
    "resolve_chunk_spec",
]
