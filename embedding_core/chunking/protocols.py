"""What chunking needs of a tokenizer, and what it gives: two protocols."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from embedding_core.records import Chunk


class Tokenizer(Protocol):
    """A model's tokenizer. For every text ``count == len(offsets) + n_special``."""

    @property
    def n_special(self) -> int:
        """Tokens the model adds to every text."""
        ...

    def offsets(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Per text an int array ``(n_tokens, 2)``: first character and the one after the last of
        each content token, in characters, without special tokens."""
        ...

    def count(self, texts: Sequence[str]) -> list[int]:
        """Per text the tokens the model sees, special tokens included, without any limit."""
        ...


class Chunker(Protocol):
    """Cuts a document into chunks."""

    def chunk(self, text: str) -> list[Chunk]:
        """Chunks in order, indexed from 0, each ``text[char_start:char_end]`` without white space
        at its ends. Every character that is not white space is in a chunk; a blank text has none.
        """
        ...
