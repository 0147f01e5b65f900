"""What strategies that cut at a number of tokens have in common: their options and limits."""

from __future__ import annotations

from typing import Self, TypeVar

from pydantic import Field, model_validator

from embedding_core.errors import UsageError
from embedding_core.plurals import counted
from embedding_core.protocols import Tokenizer
from embedding_core.recipe.chunk import ChunkOptions

DEFAULT_MAX_TOKENS = 512
"""Longest chunk when the recipe does not say, unless the model takes less."""


class LengthOptions(ChunkOptions):
    """Lengths are in tokens the model sees; those of the context and special tokens count."""

    max_tokens: int | None = Field(default=None, ge=8)
    """Longest chunk; default: 512, or what the model takes if that is less."""
    overlap: int = Field(default=0, ge=0)
    """Tokens a chunk repeats of the one before it."""
    min_new_tokens: int = Field(default=0, ge=0)
    """A chunk brings at least so many tokens that the one before it does not have, or is joined to
    that one; where both together are too long, text is moved from that one to this. Behind a
    context so long that a chunk has no room for twice as much, a chunk may bring less."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.max_tokens is not None and (problem := contradiction(self, self.max_tokens)):
            raise ValueError(problem)
        return self


Options = TypeVar("Options", bound=LengthOptions)


def contradiction(options: LengthOptions, max_tokens: int, section: str = "") -> str | None:
    """Why the lengths do not go together; None when they do."""
    half = max_tokens // 2
    if options.overlap > half:
        return (
            f"{section}overlap {options.overlap} is more than half of {section}max_tokens "
            f"{max_tokens}; use at most {half}"
        )
    if options.min_new_tokens and options.overlap + options.min_new_tokens > half:
        return (
            f"{section}min_new_tokens {options.min_new_tokens} and {section}overlap "
            f"{options.overlap} together are more than half of {section}max_tokens {max_tokens}; "
            "lower one of them"
        )
    return None


def with_lengths(options: Options, limit: int) -> Options:
    """The options with ``max_tokens`` filled in for a model that takes ``limit`` tokens.

    Raises ``UsageError`` when a length does not fit the model, or another length.
    """
    max_tokens = options.max_tokens
    if max_tokens is None:
        max_tokens = min(DEFAULT_MAX_TOKENS, limit)
    if max_tokens > limit:
        raise UsageError(
            f"chunk.max_tokens {max_tokens} is above the model's limit of "
            f"{counted(limit, 'token')}; use at most {limit}, or a model that takes more"
        )
    if problem := contradiction(options, max_tokens, "chunk."):
        raise UsageError(problem)
    return options.model_copy(update={"max_tokens": max_tokens})


def checked_max_tokens(options: LengthOptions, tokenizer: Tokenizer, limit: int) -> int:
    """``max_tokens`` of settled options. Raises ``UsageError`` when they are not settled, are above
    ``limit``, or leave no room beside the special tokens, or for two chunks of new text."""
    if options.max_tokens is None:
        raise UsageError("chunk.max_tokens is not settled; call `chunking.settled` first")
    with_lengths(options, limit)
    if options.max_tokens <= tokenizer.n_special:
        raise UsageError(
            f"chunk.max_tokens {options.max_tokens} leaves no room beside the model's "
            f"{counted(tokenizer.n_special, 'special token')}; raise it"
        )
    half = (options.max_tokens - tokenizer.n_special) // 2
    if options.min_new_tokens and options.overlap + options.min_new_tokens > half:
        raise UsageError(
            f"chunk.min_new_tokens {options.min_new_tokens} and chunk.overlap {options.overlap} "
            f"together are more than half of what chunk.max_tokens {options.max_tokens} leaves "
            f"beside {counted(tokenizer.n_special, 'special token')}; use at most {half} together"
        )
    return options.max_tokens
