from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from embedding_core.encoder import Encoder, InvalidText, stream
from embedding_core.encoder.local import transformer
from embedding_core.encoder.stream import map_ahead, pieces_of
from tests.checkpoints import TEXTS

BATCHES: list[Any] = [
    [TEXTS[0][:300], "", "short"],
    [],
    pa.array([text[:200] for text in TEXTS[1:20]]),
    pa.chunked_array([["a"], [], ["naïve 中文", "c"]]),
    pa.array(["large"], pa.large_string()),
]
FLAT = [
    text for batch in BATCHES for text in (batch if isinstance(batch, list) else batch.to_pylist())
]


def _vectors(batch: pa.RecordBatch, dim: int) -> Any:
    return np.array(batch.column("vector").flatten()).reshape(-1, dim)


@pytest.fixture(scope="module", params=["hashing", "tiny_qwen3"])
def encoder(request: pytest.FixtureRequest) -> Encoder:
    name = "hashing" if request.param == "hashing" else request.getfixturevalue(request.param)
    return Encoder.load(str(name), dtype="fp32", device="cpu")


@pytest.mark.parametrize("window", [1, 64])
def test_encode_stream_equals_encode_batch_by_batch(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch, window: int
) -> None:
    monkeypatch.setattr(stream, "PIECE_CHARS", 500)
    monkeypatch.setitem(transformer.WINDOW_BATCHES, "cpu", window)
    dim = encoder.space.dim
    out = list(encoder.encode_stream(iter(BATCHES)))
    assert [batch.num_rows for batch in out] == [len(batch) for batch in BATCHES]
    assert all(batch.schema == stream.stream_schema(dim) for batch in out)
    vectors = np.concatenate([_vectors(batch, dim) for batch in out])
    encoded = encoder.encode(FLAT)
    assert np.abs(vectors - encoded.vectors).max() <= 1e-5
    assert sum(sum(batch.column("n_tokens").to_pylist()) for batch in out) == encoded.n_tokens
    assert {why for batch in out for why in batch.column("failure").to_pylist()} == {None}


def test_encode_stream_query_kind_has_the_prompt(encoder: Encoder) -> None:
    [batch] = encoder.encode_stream([["why"]], "query")
    expected = encoder.encode_queries(["why"])
    assert np.abs(_vectors(batch, encoder.space.dim) - expected).max() <= 1e-6


def test_encode_arrow_and_list_same(encoder: Encoder) -> None:
    texts = ["one", "two", "three"]
    np.testing.assert_array_equal(
        encoder.encode_documents(texts), encoder.encode_documents(pa.array(texts))
    )


@pytest.mark.parametrize(("bad", "message"), [("\ud800", "not valid Unicode"), (None, "NoneType")])
def test_encode_stream_bad_text_named_by_batch_and_place(
    tiny_qwen3: Path, bad: Any, message: str
) -> None:
    encoder = Encoder.load(str(tiny_qwen3), dtype="fp32", device="cpu")
    with pytest.raises(InvalidText, match=f"text 1 of batch 1 .*{message}") as caught:
        list(encoder.encode_stream([["fine"], ["fine", bad]]))
    assert (caught.value.batch, caught.value.index) == (1, 1)
    with pytest.raises(InvalidText, match=f"^text 1 is .*{message}"):
        encoder.encode(["fine", bad], "query")


def test_encode_stream_reads_only_a_few_batches_ahead(
    tiny_qwen3: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "PIECE_CHARS", 100)
    monkeypatch.setattr(transformer, "PIECE_CHARS", 100)
    monkeypatch.setitem(transformer.WINDOW_BATCHES, "cpu", 1)
    encoder = Encoder.load(str(tiny_qwen3), dtype="fp32", device="cpu", batch_tokens=64)
    read = 0

    def endless() -> Iterator[list[str]]:
        nonlocal read
        while True:
            read += 1
            yield [TEXTS[read % 50][:150]]

    running = encoder.encode_stream(endless())
    for done in range(1, 30):
        next(running)
        assert read <= done + 8
    running.close()  # type: ignore[attr-defined]
    assert not [t for t in threading.enumerate() if t.name.startswith("embedlake-ahead")]


def test_pieces_any_sizes_every_text_once_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "PIECE_CHARS", 10)
    monkeypatch.setattr(stream, "PIECE_TEXTS", 3)
    batches: list[Any] = [["a" * n for n in (1, 20, 3, 4, 5, 0, 0)], [], ["b"] * 4]
    cut = list(pieces_of(batches))
    for number, batch in enumerate(batches):
        mine = [piece for piece in cut if piece.batch == number]
        assert [text for piece in mine for text in piece.texts] == batch
        assert [piece.ends_batch for piece in mine] == [False] * (len(mine) - 1) + [True]
        assert [piece.start for piece in mine] == [
            sum(len(earlier.texts) for earlier in mine[:place]) for place in range(len(mine))
        ]


def test_map_ahead_in_order_and_no_further_than_asked() -> None:
    taken = []

    def items() -> Iterator[int]:
        for item in range(20):
            taken.append(item)
            yield item

    results = map_ahead(lambda item: item * 2, items(), n_ahead=3, n_threads=2)
    assert next(results) == 0
    assert len(taken) == 4
    assert list(results) == [item * 2 for item in range(1, 20)]


def test_map_ahead_error_in_its_place_and_no_thread_left() -> None:
    results = map_ahead(lambda item: 1 // item, [2, 1, 0, 1], n_ahead=4, n_threads=2)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert not [t for t in threading.enumerate() if t.name.startswith("embedlake-ahead")]
