"""What every engine promises, and the encoders it loads. Runs every engine there is."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from embedding_core.encoder import Encoder, describe_model, model_spec
from embedding_core.encoder.engines import (
    KNOWN_ENGINES,
    NOT_FOR_ENGINES,
    ModelOptions,
    engine_of,
)
from embedding_core.errors import ModelError
from embedding_core.identity import space_id
from embedding_core.recipe import ModelSpec
from embedding_core.store.storage import StorageSpec
from tests.checkpoints import TEXTS
from tests.encoder.remote.stub_engine import stub_engine
from tests.models import describe

SAMPLE = [TEXTS[0][:400], "", "short", TEXTS[1][:90], "short", "naïve 中文 🙂 text\n\twith tabs  "]


MODELS = {
    "hashing": ["hashing"],
    "checkpoint": ["minilm", "tiny_qwen3"],
    "endpoint": ["served_qwen3"],
}
"""Models of each engine: names, or fixtures that give one."""
OPTIONS: ModelOptions = {
    "revision": "main",
    "adapter": "./adapter",
    "adapter_revision": "main",
    "storage": StorageSpec(anonymous=True),
    "dtype": "bf16",
    "dim": 32,
    "max_tokens": 64,
    "allow_unverified": True,
    "api": "tei",
    "served": "another",
    "endpoints": ("http://127.0.0.1:9",),
    "tokenizer": "cautious",
    "query_prompt": "query: ",
    "document_prompt": "passage: ",
}
"""A value of each option that is not its default."""


def test_suite_runs_every_engine_and_every_option() -> None:
    assert set(KNOWN_ENGINES.names()) == set(MODELS)
    fields = set(ModelSpec.model_fields) - NOT_FOR_ENGINES
    assert fields == set(OPTIONS) == set(ModelOptions.__annotations__)


@pytest.fixture(scope="module")
def served_qwen3(tiny_qwen3: Path) -> Iterator[str]:
    """A server whose id of its model is a folder that is here."""
    with stub_engine(served=(str(tiny_qwen3),), dim=64) as engine:
        yield engine.url


@pytest.fixture(scope="module", params=[name for names in MODELS.values() for name in names])
def name(request: pytest.FixtureRequest) -> str:
    return "hashing" if request.param == "hashing" else str(request.getfixturevalue(request.param))


def test_engine_one_claims_the_name(name: str) -> None:
    claims = [engine.claims(name) for engine in KNOWN_ENGINES.working().values()]
    assert claims.count(True) == 1


@pytest.mark.parametrize("option", sorted(OPTIONS))
def test_engine_option_honoured_or_refused(name: str, option: str) -> None:
    model = model_spec(name, **{option: OPTIONS[option]})
    ignored = rf"^{option} .* means nothing for the model {re.escape(repr(name))}; remove it$"
    try:
        describe_model(model)
    except ModelError as error:
        refused = re.search(ignored, str(error)) is not None
    else:
        refused = False
    assert refused == (option not in engine_of(name).options)


def test_info_is_hashable_and_pickles(name: str) -> None:
    info = describe(name)
    assert pickle.loads(pickle.dumps(info)) == info == describe(name)
    assert len({info, describe(name)}) == 1
    assert len(pickle.dumps(info)) < 10_000


def test_tokenizer_for_another_prompt_counts_it(name: str) -> None:
    info = describe(name)
    prompted = info.tokenizer_for("a prompt: ")
    assert prompted.offsets(SAMPLE)[0].shape == info.tokenizer.offsets(SAMPLE)[0].shape
    assert prompted.n_special >= info.tokenizer.n_special


@pytest.mark.parametrize("option", ["dim", "max_tokens", "batch_tokens"])
def test_load_value_out_of_bounds_is_named(name: str, option: str) -> None:
    with pytest.raises(ModelError, match=rf"^{option} is 0: Input should be greater"):
        Encoder.load(name, **{option: 0})


def test_load_unknown_option_type_error_names_the_known(name: str) -> None:
    with pytest.raises(TypeError, match="no model option 'revison'; use revision, "):
        Encoder.load(name, revison="main")


@pytest.fixture(scope="module")
def encoder(name: str) -> Encoder:
    return Encoder.load(name, dtype="fp32", device="cpu")


@pytest.mark.parametrize("kind", ["document", "query"])
def test_encode_unit_float32_rows(encoder: Encoder, kind: Literal["document", "query"]) -> None:
    encoded = encoder.encode(SAMPLE, kind)
    assert encoded.vectors.shape == (len(SAMPLE), encoder.space.dim)
    assert encoded.vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(encoded.vectors, axis=1), 1.0, atol=1e-5)
    assert encoded.n_truncated == encoded.n_recomputed == 0


@pytest.mark.parametrize("kind", ["document", "query"])
def test_encode_no_texts_no_rows(encoder: Encoder, kind: Literal["document", "query"]) -> None:
    encoded = encoder.encode([], kind)
    assert encoded.vectors.shape == (0, encoder.space.dim)
    assert encoded.vectors.dtype == np.float32
    assert encoded.n_tokens == 0


def test_encode_rows_in_input_order(encoder: Encoder) -> None:
    vectors = encoder.encode_documents(SAMPLE)
    backwards = encoder.encode_documents(SAMPLE[::-1])
    np.testing.assert_allclose(vectors, backwards[::-1], atol=1e-5)
    np.testing.assert_allclose(vectors[2], vectors[4], atol=1e-5)
    assert vectors[0] @ vectors[2] < 0.999


def test_encode_twice_identical(encoder: Encoder) -> None:
    np.testing.assert_array_equal(
        encoder.encode_documents(SAMPLE), encoder.encode_documents(SAMPLE)
    )


def test_encode_prompt_on_queries_only(encoder: Encoder) -> None:
    documents, queries = encoder.encode_documents(["why"]), encoder.encode_queries(["why"])
    prompted = encoder.encode_documents([encoder.space.query_prompt + "why"])
    np.testing.assert_array_equal(queries, prompted)
    assert (encoder.space.query_prompt == "") == np.array_equal(documents, queries)


def test_encode_counts_the_tokens_it_read(encoder: Encoder) -> None:
    assert encoder.encode(SAMPLE).n_tokens == sum(encoder.tokenizer.count(SAMPLE))


def test_offsets_lie_in_the_text_in_order_and_miss_only_blanks(encoder: Encoder) -> None:
    for text, offsets in zip(SAMPLE, encoder.tokenizer.offsets(SAMPLE), strict=True):
        assert offsets.shape == (len(offsets), 2)
        assert np.issubdtype(offsets.dtype, np.integer)
        assert (offsets[:, 0] < offsets[:, 1]).all()
        assert (np.diff(offsets, axis=0) >= 0).all()
        covered = {i for start, end in offsets.tolist() for i in range(start, end)}
        assert all(text[i].isspace() for i in set(range(len(text))) - covered)
        assert covered <= set(range(len(text)))


def test_offsets_ascii_words_slice_exactly(encoder: Encoder) -> None:
    [offsets] = encoder.tokenizer.offsets(["a, b"])
    pieces = ["a, b"[start:end].strip() for start, end in offsets.tolist()]
    assert [piece for piece in pieces if piece] == ["a", ",", "b"]


def test_count_is_offsets_and_special_tokens(encoder: Encoder) -> None:
    tokenizer = encoder.tokenizer
    content = [len(offsets) for offsets in tokenizer.offsets(SAMPLE)]
    assert tokenizer.count(SAMPLE) == [n + tokenizer.n_special for n in content]
    assert tokenizer.count([]) == tokenizer.offsets([]) == []


def test_max_tokens_longer_text_cut_and_counted(name: str) -> None:
    encoder = Encoder.load(name, dtype="fp32", device="cpu", max_tokens=10)
    encoded = encoder.encode([TEXTS[0], "short"])
    assert encoded.n_truncated == 1
    assert encoded.n_tokens == 10 + encoder.tokenizer.count(["short"])[0]
    np.testing.assert_allclose(
        encoded.vectors[0], encoder.encode_documents([TEXTS[0] + " and more"])[0], atol=1e-6
    )


def test_dim_shorter_unit_vectors(name: str) -> None:
    vectors = Encoder.load(name, dtype="fp32", device="cpu", dim=32).encode_documents(SAMPLE)
    assert vectors.shape == (len(SAMPLE), 32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)


def test_resolve_same_space_and_tokenizer_as_loaded(name: str, encoder: Encoder) -> None:
    resolved = describe(name, dtype="fp32")
    assert resolved.space == encoder.space
    assert space_id(resolved.space) == space_id(encoder.space)
    assert resolved.tokenizer.count(SAMPLE) == encoder.tokenizer.count(SAMPLE)


def test_load_other_settings_other_space(name: str, encoder: Encoder) -> None:
    ids = {space_id(encoder.space)}
    for changed in ({"dim": 32}, {"max_tokens": 64}):
        ids.add(space_id(describe(name, dtype="fp32", **changed).space))
    assert len(ids) == 3


@pytest.mark.parametrize("bare", ["hello", b"hello"])
def test_bare_string_type_error_wherever_texts_are_expected(
    encoder: Encoder, bare: str | bytes
) -> None:
    texts: Any = bare
    calls: list[Callable[[], object]] = [
        lambda: encoder.encode(texts),
        lambda: encoder.encode_documents(texts),
        lambda: encoder.encode_queries(texts),
        lambda: encoder.encode_stream(texts),
        lambda: list(encoder.encode_stream([["fine"], texts])),
        lambda: encoder.tokenizer.count(texts),
        lambda: encoder.tokenizer.offsets(texts),
    ]
    for call in calls:
        with pytest.raises(TypeError, match=r"expected a list of texts, .* pass \[text\] for one"):
            call()
