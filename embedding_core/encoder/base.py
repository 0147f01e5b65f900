"""What every encoder promises. Knows no model, no checkpoint and no arithmetic."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedding_core.encoder.stream import Piece, Rows, Texts, refuse_bare_string, to_arrow
from embedding_core.encoder.stream import pieces as cut
from embedding_core.errors import RejectedInput
from embedding_core.identity import SHOWN_DIGITS, space_id
from embedding_core.reasons import ALL, Reason
from embedding_core.records import Space

if TYPE_CHECKING:
    from embedding_core.store.storage import StorageSpec

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

    @property
    def merges_at_start(self) -> bool:
        """Whether a document's start may merge with the prompt: ``count`` alone is exact then."""
        ...

    def offsets(self, texts: Sequence[str]) -> list[Offsets]:
        """Per text an (n_tokens, 2) array: start and end of each content token, in characters."""
        ...

    def count(self, texts: Sequence[str]) -> list[int]:
        """Per text the tokens the model would see without truncation, ``n_special`` included."""
        ...

    def unknown_shares(self, texts: Sequence[str]) -> list[float]:
        """Per text the share of its characters, white space left out, that lie in unknown tokens:
        the model sees the same there whatever they are."""
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


class InvalidText(ValueError):
    """A text that no encoder takes: not a string, or not valid Unicode. Nothing was encoded."""

    def __init__(self, index: int, why: str, batch: int | None = None) -> None:
        place = f"text {index}" if batch is None else f"text {index} of batch {batch}"
        super().__init__(f"{place} {why}")
        self.index = index
        """0-based position in the call's input, or in its batch of a stream."""
        self.why = why
        self.batch = batch
        """0-based number of the stream's batch; None outside a stream."""


SEVERAL = Reason("no_vector", "the model gives no vector", "other device", "chunk")


class TextsWithoutVector(RejectedInput):
    """Texts for which the model gives no vector here.

    ``reasons`` are short fixed words by the texts' 0-based positions in the call's input, which
    are also ``indices``; the other texts are fine.
    """

    def __init__(self, reasons: Mapping[int, str]) -> None:
        indices = sorted(reasons)
        shown = ", ".join(map(str, indices[:16])) + (", …" if len(indices) > 16 else "")
        words = sorted(set(reasons.values()))
        super().__init__(
            ALL[words[0]] if len(words) == 1 else SEVERAL,
            f"{len(indices)} text(s) have no vector, at input positions {shown}: "
            + "; ".join(FAILURES.get(word, word) for word in words),
        )
        self.reasons = dict(reasons)
        self.indices = tuple(indices)


class NonFiniteVectors(TextsWithoutVector):
    """Texts for which the model gives no finite vector even in fp32."""

    def __init__(self, indices: Sequence[int]) -> None:
        super().__init__(dict.fromkeys(indices, NON_FINITE))


class TooLargeForMemory(TextsWithoutVector):
    """Texts that do not fit the device's memory even alone."""

    def __init__(self, indices: Sequence[int]) -> None:
        super().__init__(dict.fromkeys(indices, OUT_OF_MEMORY))


NON_FINITE = "non_finite_vector"
OUT_OF_MEMORY = "out_of_memory"
NO_WIDER_TYPE = "no_wider_type"
FAILURES = {
    NON_FINITE: "the model gives no finite vector for this text, not even in fp32; leave it out, "
    "or check the model's weights",
    OUT_OF_MEMORY: "the text does not fit the device's memory even alone; set a smaller "
    "max_tokens or use a larger device",
    NO_WIDER_TYPE: "half precision gives no finite vector for this text, and the weights in a "
    "wider type do not fit the device; use a larger device, or dtype bf16 if it was fp16",
}
"""Why a text can have no vector, for people."""


def without_vector(reasons: Mapping[int, str]) -> TextsWithoutVector:
    """The error that says these reasons most exactly."""
    words = set(reasons.values())
    if words == {NON_FINITE}:
        return NonFiniteVectors(sorted(reasons))
    if words == {OUT_OF_MEMORY}:
        return TooLargeForMemory(sorted(reasons))
    return TextsWithoutVector(reasons)


def _with_folder(name: str) -> str:
    """A bare name of a folder here as a path: without a slash it cannot be a hub id."""
    is_bare = "/" not in name and ":" not in name
    return f"./{name}" if is_bare and Path(name, "config.json").is_file() else name


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
        adapter: str | None = None,
        adapter_revision: str | None = None,
        storage: StorageSpec | None = None,
    ) -> Encoder:
        """Find the model called ``name`` and make it ready to run.

        ``name``: hub id, local folder (``./name``; here also a bare ``name``, without a slash, of a
        folder in the working directory), ``s3://bucket/prefix``, ``package:<python package>`` or
        ``hashing``; the last part of a path may be ``latest`` (docs/recipes.md). ``adapter``: a
        LoRA adapter by hub id (at ``adapter_revision``), folder or prefix, merged into the weights.
        ``storage``: how to reach the bucket, when it is not plain AWS. ``dtype``: auto, fp16, bf16,
        fp32 or fp8. ``device``: auto, cpu, cuda or cuda:<n>. ``dim`` keeps the first values of each
        vector. ``max_tokens`` counts special tokens. ``batch_tokens`` is the token budget of one
        forward pass: it changes speed and memory, never the vectors. Left out, it is chosen, on a
        GPU from the free memory; when memory runs out it is halved and stays so.
        ``allow_unverified`` runs an architecture whose vectors are not tested here, padded and
        through transformers' own attention: slower, and right only if transformers is right for
        right-padded texts. Code in a checkpoint is never run.
        Raises ``ModelError`` when the model cannot be found, trusted or run here, ``Transient``
        when a bucket does not answer.
        """
        from embedding_core.encoder.load import load_resolved
        from embedding_core.encoder.resolve import resolve_model

        resolved = resolve_model(
            _with_folder(name),
            revision=revision,
            dtype=dtype,
            dim=dim,
            max_tokens=max_tokens,
            allow_unverified=allow_unverified,
            adapter=adapter,
            adapter_revision=adapter_revision,
            storage=storage,
        )
        return load_resolved(resolved, device, batch_tokens)

    def __repr__(self) -> str:
        space = self.space
        return (
            f"<{type(self).__name__} {space.model}: {space.dim} dimensions, {space.max_tokens:,} "
            f"tokens, {space.pooling} pooling, space {space_id(space)[:SHOWN_DIGITS]}>"
        )

    @abstractmethod
    def encode_pieces(self, pieces: Iterable[Piece], kind: Kind) -> Iterator[tuple[Piece, Rows]]:
        """Each piece with what became of it, in order; ``encode`` and ``encode_stream`` use it.

        Raises ``InvalidText`` for a text that cannot be tokenised, naming its place in its batch
        and the batch.
        """

    def encode(self, texts: Texts, kind: Kind = "document") -> Encoded:
        """Encode every text, results in input order.

        Memory beyond the result is bounded. Raises ``TypeError`` for a bare string,
        ``InvalidText``, a ``ValueError``, naming the index of a text that is not valid Unicode, and
        ``TextsWithoutVector`` when the model has no finite vector for a text
        (``NonFiniteVectors``) or a text does not fit the memory.
        """
        refuse_bare_string(texts)
        vectors = np.empty((len(texts), self.space.dim), dtype=np.float32)  # (n_texts, dim)
        n_tokens = n_truncated = n_recomputed = 0
        reasons: dict[int, str] = {}
        try:
            for piece, rows in self.encode_pieces(cut([texts]), kind):
                vectors[piece.start : piece.start + len(piece.texts)] = rows.vectors
                reasons |= {piece.start + place: why for place, why in rows.failures.items()}
                n_tokens += int(rows.n_tokens.sum())
                n_truncated += int(rows.truncated.sum())
                n_recomputed += int(rows.recomputed.sum())
        except InvalidText as error:
            raise InvalidText(error.index, error.why) from error.__cause__
        if reasons:
            raise without_vector(reasons)
        return Encoded(vectors, n_tokens, n_truncated, n_recomputed)

    def encode_stream(
        self, batches: Iterable[Texts], kind: Kind = "document"
    ) -> Iterator[pa.RecordBatch]:
        """Encode a stream: for every batch of texts one Arrow batch, same order, same rows.

        Batches are lists of strings or Arrow string arrays, of any size; texts are sorted by
        length across batches. ``batches`` is read as far ahead as it takes to keep the model busy
        and no further, so memory is bounded by some batches (or by the largest one), whatever the
        stream's length. Columns (``stream_schema``): ``vector`` fixed_size_list<float32>[dim], unit
        norm; ``n_tokens`` int32, read by the model; ``truncated`` and ``recomputed`` bool, see
        ``Encoded``; ``failure`` null, or the reason (a key of ``FAILURES``) why ``vector``
        is null. Raises ``TypeError`` for a bare string, ``InvalidText`` naming batch and
        text.
        """
        refuse_bare_string(batches)
        return self._stream(batches, kind)

    def _stream(self, batches: Iterable[Texts], kind: Kind) -> Iterator[pa.RecordBatch]:
        parts: list[Rows] = []
        for piece, rows in self.encode_pieces(cut(batches), kind):
            parts.append(rows)
            if piece.ends_batch:
                yield to_arrow(parts, self.space.dim)
                parts = []

    def encode_documents(self, texts: Texts) -> Vectors:
        """(n_texts, dim) float32, unit norm, input order, with the document prompt."""
        return self.encode(texts, "document").vectors

    def encode_queries(self, texts: Texts) -> Vectors:
        """(n_texts, dim) float32, unit norm, input order, with the query prompt."""
        return self.encode(texts, "query").vectors
