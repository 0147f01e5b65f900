"""What rooms ask of each other without seeing each other. Types alone; loads numpy."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import numpy.typing as npt

from embedding_core.records import ModelWork, Space

if TYPE_CHECKING:
    import pyarrow as pa

Vectors = npt.NDArray[np.float32]
"""(n_rows, dim) unit norm; a row of NaN has no vector."""
Offsets = npt.NDArray[np.int64]
"""(n_tokens, 2) first character of a token, and the position after its last."""
Kind = Literal["document", "query"]


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

    @property
    def seams(self) -> tuple[re.Pattern[str], ...]:
        """Kinds of seam; a seam is where a match ends, and tokens on its one side do not depend on
        the text on its other: parts cut at seams of a kind keep their tokens however they are put
        together again. Without any, more texts are tokenised twice."""
        ...

    def offsets(self, texts: Sequence[str]) -> list[Offsets]:
        """Per text the span of each content token in characters, without special tokens."""
        ...

    def count(self, texts: Sequence[str]) -> list[int]:
        """Per text the tokens the model sees, special tokens included, without any limit."""
        ...

    def unknown_shares(self, texts: Sequence[str]) -> list[float]:
        """Per text the share of its characters, white space left out, in unknown tokens."""
        ...


class TextEncoder(Protocol):
    """The one protocol of an encoder: lake, runs, gate and clients use it."""

    space: Space

    @property
    def work(self) -> ModelWork:
        """How the model was used so far."""
        ...

    def encode_stream(
        self, batches: Iterable[Sequence[str] | pa.Array], kind: Kind = "document"
    ) -> Iterator[pa.RecordBatch]:
        """One Arrow batch per batch of texts (columns of ``encoder.stream.stream_schema``)."""
        ...

    def encode_documents(self, texts: Sequence[str]) -> Vectors: ...
    def encode_queries(self, texts: Sequence[str]) -> Vectors: ...


@dataclass(frozen=True, slots=True)
class JudgedRows:
    """Rows with vectors of two spaces, as the gate reads them."""

    chunk_ids: list[str]
    doc_ids: pa.StringArray
    texts: list[str]
    titles: list[str | None]
    old: Vectors
    new: Vectors


Corpus = Callable[[], Iterator[JudgedRows]]
"""Gives the rows, the same ones every time."""
