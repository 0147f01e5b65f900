"""What every encoder promises. Knows no model, no checkpoint and no arithmetic."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from embedding_core.errors import RejectedInput
from embedding_core.records import Space

Kind = Literal["document", "query"]
"""What a text is to the model; each kind has its own prompt."""

Vectors = npt.NDArray[np.float32]
Offsets = npt.NDArray[np.int64]


class Tokenizer(Protocol):
    """Counts and locates the tokens of documents, as the model will see them."""

    @property
    def n_special(self) -> int:
        """Tokens added to every document: special tokens, and the document prompt's if any."""
        ...

    def offsets(self, texts: Sequence[str]) -> list[Offsets]:
        """Per text an (n_tokens, 2) array: start and end of each content token, in characters."""
        ...

    def count(self, texts: Sequence[str]) -> list[int]:
        """Per text the tokens the model would see without truncation, ``n_special`` included."""
        ...


@dataclass(frozen=True, slots=True)
class Encoded:
    """Vectors of one call, in input order, and what it took to make them."""

    vectors: Vectors
    """(n_texts, dim) float32, unit norm, always finite."""
    n_tokens: int
    """Real tokens that went through the model: no padding, special tokens included."""
    n_truncated: int
    """Texts longer than the space's ``max_tokens``; their end was not read."""
    n_recomputed: int
    """Rows that half precision made non-finite and that a wider type computed again."""


class NonFiniteVectors(RejectedInput):
    """Texts for which the model gives no finite vector even in fp32.

    ``indices`` are their 0-based positions in the call's input; the others are fine.
    """

    def __init__(self, indices: Sequence[int]) -> None:
        shown = ", ".join(map(str, indices[:16])) + (", …" if len(indices) > 16 else "")
        super().__init__(
            "non_finite_vector",
            f"{len(indices)} text(s) have no finite vector even in fp32, at input positions "
            f"{shown}; leave them out, or check the model's weights",
        )
        self.indices = tuple(indices)


class Encoder(ABC):
    """A loaded model: texts to unit vectors of one space."""

    space: Space
    tokenizer: Tokenizer

    @classmethod
    def load(
        cls,
        name: str,
        *,
        revision: str | None = None,
        dtype: str = "auto",
        device: str = "auto",
        dim: int | None = None,
        max_tokens: int | None = None,
        batch_tokens: int | None = None,
        allow_unverified: bool = False,
    ) -> Encoder:
        """Find the model called ``name`` and make it ready to run.

        ``name``: hub id, local folder, ``package:<python package>`` or ``hashing``. ``dtype``:
        auto, fp16, bf16 or fp32. ``device``: auto, cpu, cuda or cuda:<n>. ``dim`` keeps the first
        values of each vector. ``max_tokens`` counts special tokens. ``batch_tokens`` is the
        token budget of one forward pass: it changes speed and memory, never the vectors.
        ``allow_unverified`` runs an architecture whose vectors are not tested here, padded and
        through transformers' own attention: slower, and right only if transformers is right for
        right-padded texts. Code in a checkpoint is never run.
        Raises ``ModelError`` when the model cannot be found, trusted or run here.
        """
        from embedding_core.encoder.load import load_encoder

        return load_encoder(
            name,
            revision=revision,
            dtype=dtype,
            device=device,
            dim=dim,
            max_tokens=max_tokens,
            batch_tokens=batch_tokens,
            allow_unverified=allow_unverified,
        )

    @abstractmethod
    def encode(self, texts: Sequence[str], kind: Kind = "document") -> Encoded:
        """Encode every text, results in input order.

        Raises ``ValueError`` naming the index of a text that is not valid Unicode, and
        ``NonFiniteVectors`` when the model has no finite vector for a text.
        """

    def encode_documents(self, texts: Sequence[str]) -> Vectors:
        """(n_texts, dim) float32, unit norm, input order, with the document prompt."""
        return self.encode(texts, "document").vectors

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """(n_texts, dim) float32, unit norm, input order, with the query prompt."""
        return self.encode(texts, "query").vectors
