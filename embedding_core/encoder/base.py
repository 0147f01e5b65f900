"""The base of every encoder: what it promises and what it can refuse. Knows no model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Unpack

import numpy as np
import pyarrow as pa
from pydantic import ValidationError

from embedding_core.encoder.engines import (
    ModelOptions,
    describe_model,
    load_model,
    model_spec,
    wrong_values,
)
from embedding_core.encoder.stream import (
    Piece,
    Rows,
    Texts,
    pieces_of,
    refuse_bare_string,
    to_arrow,
)
from embedding_core.errors import ModelError, RejectedInput
from embedding_core.identity import SHOWN_DIGITS, space_id
from embedding_core.plurals import counted
from embedding_core.protocols import Kind, Tokenizer, Vectors
from embedding_core.reasons import (
    ALL,
    NO_WIDER_TYPE,
    NON_FINITE,
    OUT_OF_MEMORY,
    REFUSED_BY_SERVER,
    ZERO_VECTOR,
    Reason,
)
from embedding_core.recipe import Resources, paths
from embedding_core.records import ModelWork, Space


@dataclass(frozen=True, slots=True)
class Encoded:
    """Vectors of a call, in input order, and counts of how they were made."""

    vectors: Vectors
    """(n_texts, dim) float32, unit norm, always finite."""
    n_tokens: int
    """Real tokens that went through the model: no padding, special tokens included."""
    n_truncated: int
    """Texts longer than the space's ``max_tokens``, whose end was not read."""
    n_recomputed: int
    """Rows that half precision made non-finite and that a wider type computed again."""


class InvalidText(ValueError):
    """A text that no encoder takes: not a string, or not valid Unicode. Nothing was encoded."""

    def __init__(self, index: int, why: str, batch: int | None = None) -> None:
        position = f"text {index}" if batch is None else f"text {index} of batch {batch}"
        super().__init__(f"{position} {why}")
        self.index = index
        """0-based position in the call's input, or in its batch of a stream."""
        self.why = why
        self.batch = batch
        """0-based number of the stream's batch; None outside a stream."""


FAILURES = {
    reason.name: reason.meaning
    for reason in (NON_FINITE, OUT_OF_MEMORY, NO_WIDER_TYPE, ZERO_VECTOR, REFUSED_BY_SERVER)
}
"""Meanings of the reasons why a text can have no vector."""
SEVERAL = Reason("no_vector", "the model gives no vector", "other device", "chunk")
"""Reason of an error whose texts have different ones."""


class TextsWithoutVector(RejectedInput):
    """Texts for which the model gives no vector; the other texts of the call are fine.

    ``reasons`` are short fixed words by the texts' 0-based positions in the call's input;
    ``indices`` are those positions.
    """

    def __init__(self, reasons: Mapping[int, str]) -> None:
        indices = sorted(reasons)
        shown = ", ".join(map(str, indices[:16])) + (", …" if len(indices) > 16 else "")
        words = sorted(set(reasons.values()))
        super().__init__(
            ALL.get(words[0], SEVERAL) if len(words) == 1 else SEVERAL,
            f"{len(indices)} text(s) have no vector, at input positions {shown}: "
            + "; ".join(FAILURES.get(word, word) for word in words),
        )
        self.reasons = dict(reasons)
        self.indices = tuple(indices)

    def __reduce__(self) -> tuple[object, ...]:
        return without_vector, (self.reasons,)


class NonFiniteVectors(TextsWithoutVector):
    """Texts for which the model gives no finite vector even in fp32."""

    def __init__(self, indices: Sequence[int]) -> None:
        super().__init__(dict.fromkeys(indices, NON_FINITE.name))


class TooLargeForMemory(TextsWithoutVector):
    """Texts that do not fit the device's memory even alone."""

    def __init__(self, indices: Sequence[int]) -> None:
        super().__init__(dict.fromkeys(indices, OUT_OF_MEMORY.name))


def without_vector(reasons: Mapping[int, str]) -> TextsWithoutVector:
    """The most specific error class for these reasons."""
    words = set(reasons.values())
    if words == {NON_FINITE.name}:
        return NonFiniteVectors(sorted(reasons))
    if words == {OUT_OF_MEMORY.name}:
        return TooLargeForMemory(sorted(reasons))
    return TextsWithoutVector(reasons)


class Encoder(ABC):
    """A loaded model: texts to unit vectors of one space."""

    space: Space
    tokenizer: Tokenizer
    work: ModelWork = ModelWork()
    """How it was used since it was loaded. Stays empty where there are no batches; of several
    threads at once about right."""

    @classmethod
    def load(
        cls,
        name: str,
        *,
        device: str = "auto",
        batch_tokens: int | None = None,
        **options: Unpack[ModelOptions],
    ) -> Encoder:
        """Find the model called ``name`` and make it ready to run.

        ``name``: hub id, local folder (``./name``; here also a bare ``name``, without a slash, of a
        folder in the working directory), ``s3://bucket/prefix``, ``package:<python package>``,
        ``http(s)://…`` of a server or ``hashing``; the last part of a path may be ``latest``
        (docs/recipes.md). ``adapter``: a LoRA adapter by hub id (at ``adapter_revision``), folder
        or prefix, merged into the weights. ``storage``: how to reach the bucket, when it is not
        plain AWS. ``dtype``: auto, fp16, bf16, fp32 or fp8. ``device``: auto, cpu, cuda or
        cuda:<n>. ``dim`` keeps the first values of each vector. ``api``, ``served``,
        ``endpoints``, ``tokenizer`` and the prompts are for servers (docs/engines.md).
        ``max_tokens`` counts special tokens. ``batch_tokens`` is the token budget of one forward
        pass: it changes speed and memory, never the vectors. By default it is chosen, on a GPU from
        the free memory; when memory runs out it is halved and stays so.
        ``allow_unverified`` runs an architecture whose vectors are not tested here, padded and
        through transformers' own attention: slower, and right only if transformers is right for
        right-padded texts. Code in a checkpoint is never run. An engine refuses an option that it
        does not honour.
        Raises ``ModelError`` when the model cannot be found, trusted or run here, ``Transient``
        when a bucket does not answer.
        """
        model = model_spec(paths.with_folder(name), **options)
        try:
            resources = Resources(device=device, batch_tokens=batch_tokens)
        except ValidationError as error:
            raise wrong_values(error) from error
        encoder = load_model(describe_model(model), model, resources)
        if not isinstance(encoder, Encoder):
            raise ModelError(
                f"the engine of {name!r} gives a {type(encoder).__name__}, which is no Encoder; "
                "load the model by encoder.engines.load_model"
            )
        return encoder

    def __repr__(self) -> str:
        space = self.space
        return (
            f"<{type(self).__name__} {space.model}: {counted(space.dim, 'dimension')}, "
            f"{counted(space.max_tokens, 'token')}, {space.pooling} pooling, space "
            f"{space_id(space)[:SHOWN_DIGITS]}>"
        )

    def _waited(self, seconds: float) -> None:
        self.work += ModelWork(token_wait_seconds=seconds)

    @abstractmethod
    def encode_pieces(self, pieces: Iterable[Piece], kind: Kind) -> Iterator[tuple[Piece, Rows]]:
        """Each piece with its results, in order; ``encode`` and ``encode_stream`` use it.

        Raises ``InvalidText``, with the batch and the position in it, for a text that cannot be
        tokenised.
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
            for piece, rows in self.encode_pieces(pieces_of([texts]), kind):
                vectors[piece.start : piece.start + len(piece.texts)] = rows.vectors
                reasons |= {piece.start + row: why for row, why in rows.failures.items()}
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
        batch: list[Rows] = []
        for piece, rows in self.encode_pieces(pieces_of(batches), kind):
            batch.append(rows)
            if piece.ends_batch:
                yield to_arrow(batch, self.space.dim)
                batch = []

    def encode_documents(self, texts: Texts) -> Vectors:
        """(n_texts, dim) float32, unit norm, input order, with the document prompt."""
        return self.encode(texts, "document").vectors

    def encode_queries(self, texts: Texts) -> Vectors:
        """(n_texts, dim) float32, unit norm, input order, with the query prompt."""
        return self.encode(texts, "query").vectors
