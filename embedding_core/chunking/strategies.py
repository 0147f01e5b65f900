"""From a recipe's chunk section to a chunker that fits the model."""

from __future__ import annotations

from embedding_core.protocols import Tokenizer
from embedding_core.recipe.chunk import STRATEGIES, Chunker, ChunkOptions


def settled(options: ChunkOptions, limit: int) -> ChunkOptions:
    """See ``ChunkStrategy.settle``."""
    chosen: ChunkOptions = STRATEGIES.get(options.strategy).settle(options, limit)
    return chosen


def chunker_for(options: ChunkOptions, tokenizer: Tokenizer, limit: int) -> Chunker:
    """See ``ChunkStrategy.chunker``."""
    return STRATEGIES.get(options.strategy).chunker(options, tokenizer, limit)
