"""THE encode loop: rows in blocks, one encoding per text, vectors back in the rows' order."""

from __future__ import annotations

from collections import ChainMap, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from embedding_core.lake.vectors import to_numpy
from embedding_core.protocols import TextEncoder, Vectors

Rows = TypeVar("Rows")
"""What the caller keeps of a block: a table, a batch and its offsets, …"""


@dataclass(frozen=True, slots=True)
class Block(Generic[Rows]):
    """Rows that are worked on together."""

    rows: Rows
    texts: pa.Array | pa.ChunkedArray
    hashes: list[str]
    """Digest of each text."""
    has_vector: NDArray[np.bool_]
    """(n_rows,) whether a row has its vector already."""
    stored: Callable[[], Vectors]
    """(n_rows, dim) those vectors, anything for the other rows; called when the block's turn comes,
    so that waiting blocks hold none."""

    @classmethod
    def without_vectors(
        cls, rows: Rows, texts: pa.Array | pa.ChunkedArray, hashes: list[str], dim: int
    ) -> Block[Rows]:
        """A block of which every row is to be encoded."""
        n_rows = len(hashes)
        return cls(
            rows=rows,
            texts=texts,
            hashes=hashes,
            has_vector=np.zeros(n_rows, np.bool_),
            stored=lambda: np.empty((n_rows, dim), np.float32),
        )


@dataclass(frozen=True, slots=True)
class EncodedBlock(Generic[Rows]):
    """A block with the vector of every row that can have one."""

    rows: Rows
    vectors: Vectors
    """(n_rows, dim); NaN for the rows of ``failures``."""
    computed: NDArray[np.bool_]
    """(n_rows,) whether this very row's text went through the model."""
    truncated: NDArray[np.bool_]
    """(n_rows,) whether a vector made here covers the beginning of its text alone."""
    failures: dict[int, str]
    """Reason by position, of rows without a vector; equal texts fail alike."""
    n_tokens: int
    """Tokens that went through the model."""
    n_recomputed: int
    """Texts that needed a wider type."""


def encode_blocks(
    encoder: TextEncoder | None,
    blocks: Iterable[Block[Rows]],
    repeated: frozenset[str] = frozenset(),
) -> Iterator[EncodedBlock[Rows]]:
    """Encode the rows that have no vector, each text once over all blocks.

    ``repeated``: hashes of texts that stand in several rows; only their vectors are kept. Without
    an encoder every row must have its vector. Order in is order out. Memory is bounded by the
    blocks that the encoder reads ahead and a vector for each repeated text.
    """
    waiting: deque[tuple[Block[Rows], list[int]]] = deque()  # read, not encoded yet
    shared: dict[str, _Result] = {}  # of repeated texts

    def texts() -> Iterator[list[str]]:
        started: set[str] = set()  # repeated texts of this block and earlier ones
        for block in blocks:
            fresh = _fresh_positions(block, started)
            started.update(repeated.intersection(block.hashes[index] for index in fresh))
            waiting.append((block, fresh))
            yield block.texts.take(pa.array(fresh, pa.int64())).to_pylist()

    remaining = texts()
    for batch in _batches(encoder, remaining):
        block, fresh = waiting.popleft()
        results = _results([block.hashes[index] for index in fresh], batch)
        shared.update({key: results[key].copied() for key in repeated.intersection(results)})
        yield _encoded_block(block, fresh, ChainMap(results, shared), batch)
    if waiting or next(remaining, None) is not None:
        raise RuntimeError("the encoder gave fewer batches of vectors than it got of texts")


class _Result(NamedTuple):
    """What the model made of a text."""

    vector: Vectors
    """(dim,)"""
    truncated: bool
    failure: str | None

    def copied(self) -> _Result:
        """The same, without a view into the vectors of a whole batch."""
        return self._replace(vector=self.vector.copy())


def _fresh_positions(block: Block[Rows], started: set[str]) -> list[int]:
    """Positions of the rows whose texts are encoded: the first row of each text."""
    first: dict[str, int] = {}
    for index in np.flatnonzero(~block.has_vector).tolist():
        hashed = block.hashes[index]
        if hashed not in started:
            first.setdefault(hashed, index)
    return list(first.values())


def _batches(
    encoder: TextEncoder | None, texts: Iterator[list[str]]
) -> Iterator[pa.RecordBatch | None]:
    """What the encoder makes of each list of texts; None for each without an encoder."""
    if encoder is not None:
        yield from encoder.encode_stream(texts)
    else:
        yield from (None for _ in texts)


def _results(hashes: list[str], batch: pa.RecordBatch | None) -> dict[str, _Result]:
    if batch is None:
        return {}
    columns = (
        to_numpy(batch.column("vector")),
        batch.column("truncated").to_pylist(),
        batch.column("failure").to_pylist(),
    )
    return dict(zip(hashes, map(_Result, *columns), strict=True))


def _encoded_block(
    block: Block[Rows],
    fresh: list[int],
    results: Mapping[str, _Result],
    batch: pa.RecordBatch | None,
) -> EncodedBlock[Rows]:
    n_rows = len(block.hashes)
    computed, truncated = np.zeros(n_rows, np.bool_), np.zeros(n_rows, np.bool_)
    computed[fresh] = True
    vectors, failures = block.stored(), {}
    for index in np.flatnonzero(~block.has_vector).tolist():
        result = results[block.hashes[index]]
        vectors[index] = result.vector
        truncated[index] = result.truncated
        if result.failure is not None:
            failures[index] = result.failure
    return EncodedBlock(
        rows=block.rows,
        vectors=vectors,
        computed=computed,
        truncated=truncated,
        failures=failures,
        n_tokens=_sum(batch, "n_tokens"),
        n_recomputed=_sum(batch, "recomputed"),
    )


def _sum(batch: pa.RecordBatch | None, column: str) -> int:
    return 0 if batch is None else pc.sum(batch.column(column)).as_py() or 0
