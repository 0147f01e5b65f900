"""Texts in, vectors out, a few pieces at a time: memory is bounded whatever the corpus.

Cuts batches of texts into pieces, works ahead in the background, and puts the results together as
Arrow, in the order of the texts. Knows no model.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

PIECE_CHARS = 200_000
"""Characters tokenised together: enough for every core, some 20 MB of encodings while it lasts."""
PIECE_TEXTS = 4_096
"""Texts taken from an Arrow array at a time."""

Texts: TypeAlias = Sequence[str] | pa.Array | pa.ChunkedArray
"""A batch of texts: Python strings or an Arrow string array."""

Ids = npt.NDArray[np.int32]
"""(n_tokens,) token ids of one text."""

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Piece:
    """Consecutive texts of one batch."""

    batch: int
    """0-based number of the batch."""
    start: int
    """Position of the first text in its batch."""
    texts: list[str]
    ends_batch: bool


@dataclass(frozen=True, slots=True)
class Rows:
    """Results of the texts of a piece, in their order."""

    vectors: npt.NDArray[np.float32]
    """(n_texts, dim) unit norm; a row of NaN for a text without a vector."""
    n_tokens: npt.NDArray[np.int32]
    """(n_texts,) real tokens that went through the model, special tokens included."""
    truncated: npt.NDArray[np.bool_]
    """(n_texts,) whether the end of the text was not read."""
    recomputed: npt.NDArray[np.bool_]
    """(n_texts,) whether half precision failed and a wider type computed the row again."""
    failures: dict[int, str]
    """Reasons why texts have no vector, by their positions in the piece."""


def pieces_of(batches: Iterable[Texts]) -> Iterator[Piece]:
    """Every batch in pieces of about ``PIECE_CHARS``; an empty batch is one empty piece."""
    refuse_bare_string(batches)
    for number, batch in enumerate(batches):
        refuse_bare_string(batch)
        start = 0
        for texts in _split(batch):
            end = start + len(texts)
            yield Piece(number, start, texts, ends_batch=end == len(batch))
            start = end
        if len(batch) == 0:
            yield Piece(number, 0, [], ends_batch=True)


def refuse_bare_string(texts: object) -> None:
    """Raise ``TypeError`` for a string where texts are expected: each character would be a text."""
    if isinstance(texts, str | bytes):
        raise TypeError(
            f"expected a list of texts, got a single {type(texts).__name__}; pass [text] for one"
        )


def _split(batch: Texts) -> Iterator[list[str]]:
    for first in range(0, len(batch), PIECE_TEXTS):
        block: Any = batch[first : first + PIECE_TEXTS]
        texts = list(block) if isinstance(block, Sequence) else block.to_pylist()
        start = n_chars = 0
        for end, text in enumerate(texts, start=1):
            n_chars += len(text) if isinstance(text, str) else 0
            if n_chars >= PIECE_CHARS:
                yield texts[start:end]
                start, n_chars = end, 0
        if start < len(texts):
            yield texts[start:]


def map_ahead(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    n_ahead: int,
    n_threads: int,
    waited: Callable[[float], None] = lambda _seconds: None,
) -> Iterator[Result]:
    """``function(item)`` in order, up to ``n_ahead`` items ahead of the reader, in the background.

    ``items`` is read by the caller's own thread, and only that far. An error of ``function`` is
    raised when its result is due. ``waited`` is told the seconds that the reader waited.
    """

    def due(result: Future[Result]) -> Result:
        started = time.perf_counter()
        try:
            return result.result()
        finally:
            waited(time.perf_counter() - started)

    pool = ThreadPoolExecutor(n_threads, thread_name_prefix="embedlake-ahead")
    pending: deque[Future[Result]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > n_ahead:
                yield due(pending.popleft())
        while pending:
            yield due(pending.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def stream_schema(dim: int) -> pa.Schema:
    """Columns of a stream of vectors; see ``Encoder.encode_stream``."""
    return pa.schema(
        [
            pa.field("vector", pa.list_(pa.float32(), dim)),
            pa.field("n_tokens", pa.int32(), nullable=False),
            pa.field("truncated", pa.bool_(), nullable=False),
            pa.field("recomputed", pa.bool_(), nullable=False),
            pa.field("failure", pa.string()),
        ]
    )


def to_arrow(pieces: Sequence[Rows], dim: int) -> pa.RecordBatch:
    """The pieces of one batch as one Arrow batch; a text without a vector is null."""
    failures = [rows.failures.get(i) for rows in pieces for i in range(len(rows.n_tokens))]
    vectors = np.concatenate([rows.vectors for rows in pieces])  # (n_texts, dim)
    missing = pa.array([reason is not None for reason in failures], pa.bool_())
    columns = [
        pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), dim, mask=missing),
        pa.array(np.concatenate([rows.n_tokens for rows in pieces])),
        pa.array(np.concatenate([rows.truncated for rows in pieces])),
        pa.array(np.concatenate([rows.recomputed for rows in pieces])),
        pa.array(failures, pa.string()),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=stream_schema(dim))
