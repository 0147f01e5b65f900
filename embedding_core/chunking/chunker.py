"""What chunking needs of a tokenizer, and what it gives: two protocols."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from embedding_core.records import Chunk


class Tokenizer(Protocol):
    """A model's tokenizer. ``count == len(offsets) + n_special`` unless ``merges_at_start``."""

    @property
    def n_special(self) -> int:
        """Tokens the model adds to every text: special tokens and the document prompt's."""
        ...

    @property
    def merges_at_start(self) -> bool:
        """Whether the start of a text may merge with a prompt before it: only ``count`` is exact
        then."""
        ...

    def offsets(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Per text an int array ``(n_tokens, 2)``: first character and the one after the last of
        each content token, in characters, without special tokens."""
        ...

    def count(self, texts: Sequence[str]) -> list[int]:
        """Per text the tokens the model sees, special tokens included, without any limit."""
        ...

    def unknown_shares(self, texts: Sequence[str]) -> list[float]:
        """Per text the share of its characters, white space left out, in unknown tokens."""
        ...


class Chunker(Protocol):
    """Cuts a document into chunks."""

    def chunk(self, text: str) -> list[Chunk]:
        """Chunks in order, indexed from 0, each ``text[char_start:char_end]`` without white space
        at its ends. Every character that is not white space is in a chunk; a blank text has none.
        """
        ...
