"""The encode loop: any split into blocks gives the same vectors, and no text is encoded twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedding_core.encoder import Encoder
from embedding_core.protocols import Kind, Vectors
from embedding_core.records import ModelWork
from embedding_core.runs.encode import Block, EncodedBlock, encode_blocks

DIM = 16
HASHING = Encoder.load("hashing", dim=DIM)
TEXTS = ("apple", "pear", "plum", "cherry", "fig")


class Recorder:
    """The hashing encoder, which counts its texts and has no vector for some of them."""

    space = HASHING.space
    work = ModelWork()

    def __init__(self, refused: frozenset[str] = frozenset()) -> None:
        self.refused = refused
        self.encoded: Counter[str] = Counter()

    def encode_stream(
        self, batches: Iterable[Sequence[str] | pa.Array], kind: Kind = "document"
    ) -> Iterator[pa.RecordBatch]:
        """As the hashing encoder, less the refused texts."""
        texts_of_batches = [list(batch) for batch in batches]
        for texts, batch in zip(
            texts_of_batches, HASHING.encode_stream(texts_of_batches, kind), strict=True
        ):
            self.encoded.update(texts)
            keep = pa.array([text not in self.refused for text in texts], pa.bool_())
            vectors = batch.column("vector").take(
                pa.array(
                    [index if kept else None for index, kept in enumerate(keep.to_pylist())],
                    pa.int64(),
                )
            )
            reasons = [None if text not in self.refused else "out_of_memory" for text in texts]
            yield batch.set_column(0, "vector", vectors).set_column(
                4, "failure", pa.array(reasons, pa.string())
            )

    def encode_documents(self, texts: Sequence[str]) -> Vectors:
        """Not asked for."""
        raise NotImplementedError

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Not asked for."""
        raise NotImplementedError


def blocks_of(
    texts: Sequence[str], has_vector: Sequence[bool], edges: Sequence[int]
) -> Iterator[Block[range]]:
    """The rows cut at ``edges``; stored vectors are -1 so that they can be told."""
    for low, high in pairwise([0, *sorted(edges), len(texts)]):
        stored = np.array(has_vector[low:high], np.bool_)
        block = texts[low:high]
        yield Block(
            rows=range(low, high),
            texts=pa.array(block, pa.string()),
            hashes=list(block),
            has_vector=stored,
            stored=lambda stored=stored: (
                np.where(stored[:, None], -1.0, np.nan).repeat(DIM, axis=1).astype(np.float32)
            ),
        )


def encoded(
    recorder: Recorder | None,
    texts: Sequence[str],
    has_vector: Sequence[bool],
    edges: Sequence[int] = (),
) -> list[EncodedBlock[range]]:
    """Everything that the loop makes of the rows."""
    counts = Counter(texts)
    repeated = frozenset(text for text in counts if counts[text] > 1)
    return list(encode_blocks(recorder, blocks_of(texts, has_vector, edges), repeated))


@st.composite
def splits(draw: st.DrawFn) -> tuple[list[str], list[bool], list[int], frozenset[str]]:
    """Rows, which of them have a vector, where they are cut, and texts without a vector."""
    texts = draw(st.lists(st.sampled_from(TEXTS), max_size=24))
    has_vector = draw(st.lists(st.booleans(), min_size=len(texts), max_size=len(texts)))
    edges = draw(st.lists(st.integers(0, len(texts)), max_size=6))
    return texts, has_vector, edges, draw(st.frozensets(st.sampled_from(TEXTS), max_size=2))


@given(splits())
@settings(max_examples=60)
def test_encode_blocks_any_split_gives_the_same_vectors_and_encodes_each_text_once(
    split: tuple[list[str], list[bool], list[int], frozenset[str]],
) -> None:
    texts, has_vector, edges, refused = split
    recorder = Recorder(refused)
    blocks = encoded(recorder, texts, has_vector, edges)
    assert [index for block in blocks for index in block.rows] == list(range(len(texts)))
    assert recorder.encoded == Counter(
        {text for text, stored in zip(texts, has_vector, strict=True) if not stored}
    )
    assert sum(int(block.computed.sum()) for block in blocks) == len(recorder.encoded)
    expected = dict(zip(TEXTS, HASHING.encode_documents(list(TEXTS)), strict=True))
    for block in blocks:
        for position, row in enumerate(block.rows):
            if has_vector[row]:
                assert position not in block.failures
                np.testing.assert_array_equal(block.vectors[position], -1.0)
            elif texts[row] in refused:
                assert block.failures[position] == "out_of_memory"
                assert np.isnan(block.vectors[position]).all()
            else:
                assert position not in block.failures
                np.testing.assert_array_equal(block.vectors[position], expected[texts[row]])


def test_encode_blocks_without_an_encoder_gives_the_stored_vectors() -> None:
    blocks = encoded(None, ["apple", "pear"], [True, True], [1])
    assert [block.vectors.tolist() for block in blocks] == [[[-1.0] * DIM]] * 2


def test_encode_blocks_an_encoder_that_drops_a_batch_is_an_error() -> None:
    class Short(Recorder):
        def encode_stream(
            self, batches: Iterable[Sequence[str] | pa.Array], kind: Kind = "document"
        ) -> Iterator[pa.RecordBatch]:
            yield from list(super().encode_stream(batches, kind))[:-1]

    with pytest.raises(RuntimeError, match="fewer batches of vectors"):
        encoded(Short(), ["apple", "pear"], [False, False], [1])
