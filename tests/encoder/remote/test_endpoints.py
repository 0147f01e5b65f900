"""Describing a server's model: what it speaks, what it serves, how it is told from others."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stamina

from embedding_core.encoder import Encoder, parity_vectors
from embedding_core.encoder.parity import PARITY_TEXTS
from embedding_core.encoder.remote import endpoints
from embedding_core.encoder.remote.fingerprint import is_same_model
from embedding_core.encoder.remote.patience import FIRST_PAUSE_SECONDS, OF_A_PERSON
from embedding_core.errors import ModelError, Transient, UsageError
from embedding_core.identity import space_id
from embedding_core.recipe import ModelSpec, Recipe
from embedding_core.store.retry import waited_for
from tests.driver import recipe_for
from tests.encoder.remote.stub_engine import DIM, Reply, StubEngine, stub_engine
from tests.models import describe

CAUTIOUS: Any = {"tokenizer": "cautious"}


@pytest.mark.parametrize("api", ["openai", "tei"])
def test_describe_api_is_told_by_what_the_server_answers(api: str) -> None:
    with stub_engine(api=api, max_tokens=300, max_texts=12) as engine:
        info = describe(engine.url, **CAUTIOUS)
        assert info.target.api == api
        assert info.target.in_base64
        assert (info.space.dim, info.space.max_tokens, info.space.pooling) == (DIM, 300, "server")
        assert info.space.model == f"stub at {engine.url}"
        assert info.most_texts == (12 if api == "tei" else 256)
        described = describe(engine.url, api=api, served="stub", **CAUTIOUS)
        assert space_id(described.space) == space_id(info.space)


@pytest.mark.parametrize("end", ["/", "/v1", "/v1/", "/v1/embeddings"])
def test_describe_url_may_end_as_clients_of_others_want_it(end: str) -> None:
    with stub_engine() as engine:
        assert describe(engine.url + end, **CAUTIOUS).urls == (engine.url,)


def test_describe_server_that_refuses_base64_is_asked_for_floats() -> None:
    with stub_engine(takes_base64=False) as engine:
        info = describe(engine.url, **CAUTIOUS)
        assert not info.target.in_base64
        vectors = Encoder.load(engine.url, **CAUTIOUS).encode_documents(["some words"])
        np.testing.assert_allclose(vectors, engine.vectors(["some words"]), atol=1e-6)


def test_describe_several_models_asks_which() -> None:
    with stub_engine(served=("a", "b")) as engine:
        with pytest.raises(ModelError, match=r"serves 'a', 'b'; say which in model.served"):
            describe(engine.url, **CAUTIOUS)
        assert describe(engine.url, served="b", **CAUTIOUS).target.model == "b"
        with pytest.raises(ModelError, match=r"does not serve 'c' \(model.served\) but 'a', 'b'"):
            describe(engine.url, served="c", **CAUTIOUS)


def test_describe_no_server_of_models_names_what_was_asked() -> None:
    with (
        stub_engine(api="something else") as engine,
        pytest.raises(ModelError, match=r"neither /info, which TEI has, nor /v1/models; correct"),
    ):
        describe(engine.url, **CAUTIOUS)


def test_describe_server_without_a_list_of_models_is_told_the_model() -> None:
    with (
        stub_engine(served=()) as engine,
        pytest.raises(ModelError, match=r"serves no model; say which in model.served"),
    ):
        describe(engine.url, **CAUTIOUS)


def test_describe_nobody_listens_is_transient() -> None:
    with stub_engine() as engine:
        pass
    with pytest.raises(Transient, match=r"gave no answer to GET /info .* look whether it runs"):
        describe(engine.url, **CAUTIOUS)


def test_describe_server_that_is_down_is_said_to_a_person_after_two_tries() -> None:
    assert 2 * OF_A_PERSON.connect_seconds + 2 * FIRST_PAUSE_SECONDS < 5
    with stub_engine(looks=Reply(503)) as engine:
        with (
            stamina.set_testing(False),  # tests have attempts of their own
            waited_for(by_a_person=True),
            pytest.raises(Transient, match="run the same command again later"),
        ):
            describe(engine.url, **CAUTIOUS)
        assert len(engine.tokens) == 2


@pytest.mark.parametrize(
    "looks", [Reply(429, b"", {"Retry-After": "20"}), Reply(drops=threading.Event())]
)
def test_describe_server_that_keeps_a_person_waiting_is_asked_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, looks: Reply
) -> None:
    """A server that asks for a pause that no person bears, and an answer that never ends."""
    assert OF_A_PERSON.look_seconds < 5
    quick = replace(OF_A_PERSON, look_seconds=0.1)
    monkeypatch.setattr(endpoints, "patience", lambda: quick)
    with stub_engine(looks=looks) as engine:
        try:
            with pytest.raises(Transient, match=r"run the same command again"):
                describe(engine.url, **CAUTIOUS)
        finally:
            if looks.drops is not None:
                looks.drops.set()
        assert len(engine.tokens) == 1
    assert "tried again" not in caplog.text


def test_describe_slow_server_has_time_and_is_said_to_be_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Vectors of a large model on a cold machine take long."""
    said = threading.Event()

    class Heard(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "still trying to hear from http" in record.getMessage():
                said.set()

    quick = replace(OF_A_PERSON, silent_seconds=0.02, look_seconds=20)
    monkeypatch.setattr(endpoints, "patience", lambda: quick)
    heard = Heard()
    logging.getLogger("embedding_core").addHandler(heard)
    try:
        with stub_engine(before=lambda _engine, _texts: said.wait(30) and None) as engine:  # type: ignore[func-returns-value]
            describe(engine.url, **CAUTIOUS)
    finally:
        logging.getLogger("embedding_core").removeHandler(heard)
    assert said.is_set()


# Requests of a server that takes few texts


def too_many(status: int, most: int) -> Any:
    """Refuses requests of more than ``most`` texts, in the form that TEI's documentation has."""

    def refuse(_engine: StubEngine, texts: Sequence[str]) -> Reply | None:
        message = f"batch size {len(texts)} > maximum allowed batch size {most}"
        body = json.dumps({"error": message, "error_type": "Validation"}).encode()
        return Reply(status, body) if len(texts) > most else None

    return refuse


@pytest.mark.parametrize("status", [400, 413, 422])
@pytest.mark.parametrize("most", [1, 3])
def test_server_of_few_texts_is_asked_for_so_many_from_then_on(status: int, most: int) -> None:
    with stub_engine(before=too_many(status, most)) as engine:
        info = describe(engine.url, **CAUTIOUS)
        assert info.most_texts == {1: 1, 3: 2}[most]
        engine.texts.clear()
        assert describe(engine.url, **CAUTIOUS) == info  # as each task does
        assert max(map(len, engine.texts)) == info.most_texts
        engine.texts.clear()
        texts = [f"text {n}" for n in range(9)]
        vectors = Encoder.load(engine.url, **CAUTIOUS).encode_documents(texts)
        np.testing.assert_allclose(vectors, engine.vectors(texts), atol=1e-6)
        assert max(map(len, engine.texts)) == info.most_texts


def test_server_that_says_how_many_texts_it_takes_is_believed_first() -> None:
    with stub_engine(api="tei", max_texts=1) as engine:
        describe(engine.url, **CAUTIOUS)
        assert [len(texts) for texts in engine.texts] == [1] * len(PARITY_TEXTS)


# Tokenizers


def test_tokenizer_of_a_checkpoint_counts_as_it_does_here(minilm: str) -> None:
    with stub_engine() as engine:
        info = describe(engine.url, tokenizer=minilm)
        local = describe(minilm)
        assert info.space.tokenizer == local.space.tokenizer
        assert info.space.max_tokens == local.space.max_tokens
        assert info.tokenizer.count(list(PARITY_TEXTS)) == local.tokenizer.count(list(PARITY_TEXTS))


def test_tokenizer_folder_without_weights_is_enough(tiny_qwen3: Path, tmp_path: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        if (tiny_qwen3 / name).is_file():
            (tmp_path / name).write_bytes((tiny_qwen3 / name).read_bytes())
    with stub_engine() as engine:
        info = describe(engine.url, tokenizer=str(tmp_path))
        local = describe(str(tiny_qwen3))
        assert info.space.tokenizer == local.space.tokenizer
        assert info.tokenizer.count(["some words"]) == local.tokenizer.count(["some words"])
        assert info.space.query_prompt == local.space.query_prompt


def test_tokenizer_is_guessed_from_a_folder_that_is_served(tiny_qwen3: Path) -> None:
    with stub_engine(served=(str(tiny_qwen3),)) as engine:
        assert describe(engine.url).space.tokenizer == describe(str(tiny_qwen3)).space.tokenizer


def test_tokenizer_that_is_not_here_says_what_to_do() -> None:
    with (
        stub_engine() as engine,
        pytest.raises(
            ModelError,
            match=r"nothing here counts the tokens of 'stub'.*model.tokenizer.*tokenizer: cautious",
        ),
    ):
        describe(engine.url)


def test_cautious_tokenizer_counts_more_than_a_real_one(minilm: str) -> None:
    with stub_engine() as engine:
        cautious = describe(engine.url, **CAUTIOUS).tokenizer
    texts = list(PARITY_TEXTS)
    exact = describe(minilm).tokenizer.count(texts)
    assert all(n >= m for n, m in zip(cautious.count(texts), exact, strict=True))
    assert cautious.count(texts) == [
        len(offsets) + cautious.n_special for offsets in cautious.offsets(texts)
    ]


def test_prompts_of_the_recipe_are_put_before_texts_here(minilm: str) -> None:
    with stub_engine() as engine:
        encoder = Encoder.load(
            engine.url, tokenizer=minilm, query_prompt="query: ", document_prompt="passage: "
        )
        engine.texts.clear()
        encoder.encode_queries(["why"])
        encoder.encode_documents(["because"])
    assert [texts[0] for texts in engine.texts] == ["query: why", "passage: because"]


def test_max_tokens_above_the_servers_is_refused(minilm: str) -> None:
    with stub_engine(max_tokens=100) as engine:
        assert describe(engine.url, tokenizer=minilm).space.max_tokens == 100
        assert describe(engine.url, tokenizer=minilm, max_tokens=50).space.max_tokens == 50
        with pytest.raises(ModelError, match=r"max_tokens 101 is above the 100 tokens"):
            describe(engine.url, tokenizer=minilm, max_tokens=101)


def test_dim_and_dtype_are_ours(minilm: str) -> None:
    with stub_engine() as engine:
        assert describe(engine.url, dim=16, **CAUTIOUS).space.dim == 16
        with pytest.raises(ModelError, match=r"dim 49 is larger than the 48 values"):
            describe(engine.url, dim=49, **CAUTIOUS)
        assert describe(engine.url, dtype="fp32", **CAUTIOUS).space.dtype_class == "full"
        with pytest.raises(ModelError, match=r"the server chooses its arithmetic; use auto"):
            describe(engine.url, dtype="fp16", **CAUTIOUS)


# Identity


def test_revision_of_a_noisy_server_keeps_the_space() -> None:
    with stub_engine() as engine:
        first = describe(engine.url, **CAUTIOUS).space
        engine.noise = 5e-3 / DIM**0.5
        ids = {space_id(describe(engine.url, revision=first.revision, **CAUTIOUS).space)}
        again = describe(engine.url, **CAUTIOUS).space
        assert ids == {space_id(first)}
        assert is_same_model(first, again)


def test_revision_of_a_changed_server_is_refused_with_what_changed() -> None:
    with stub_engine() as engine:
        first = describe(engine.url, **CAUTIOUS).space
        engine.weights = 3
        changed = describe(engine.url, **CAUTIOUS).space
        assert space_id(changed) != space_id(first)
        assert not is_same_model(first, changed)
        with pytest.raises(ModelError, match=r"gives other vectors for 'stub' .* mean cosine"):
            describe(engine.url, revision=first.revision, **CAUTIOUS)


def test_identity_has_the_servers_id_of_the_model() -> None:
    with stub_engine() as engine, stub_engine(served=("other",)) as other:
        spaces = [describe(e.url, **CAUTIOUS).space for e in (engine, other)]
        assert spaces[0].revision == spaces[1].revision
        assert space_id(spaces[0]) != space_id(spaces[1])
        assert not is_same_model(*spaces)


def test_identity_is_the_same_through_either_api() -> None:
    with stub_engine() as engine, stub_engine(api="tei") as other:
        spaces = [describe(e.url, **CAUTIOUS).space for e in (engine, other)]
        assert space_id(spaces[0]) == space_id(spaces[1])


def test_revision_that_is_no_fingerprint_is_refused() -> None:
    with (
        stub_engine() as engine,
        pytest.raises(ModelError, match=r"revision 'main' means nothing .*; remove it"),
    ):
        describe(engine.url, revision="main", **CAUTIOUS)


# Several servers


def both(first: StubEngine, second: StubEngine) -> Any:
    return describe(first.url, endpoints=(second.url,), **CAUTIOUS)


def test_endpoints_of_one_model_share_the_texts(minilm: str) -> None:
    with stub_engine() as first, stub_engine() as second:
        assert both(first, second).urls == (first.url, second.url)
        encoder = Encoder.load(
            first.url, endpoints=(second.url,), tokenizer=minilm, batch_tokens=16
        )
        first.texts.clear(), second.texts.clear()
        texts = [f"text number {i}" for i in range(60)]
        np.testing.assert_allclose(encoder.encode_documents(texts), first.vectors(texts), atol=1e-6)
        assert len(first.texts) > 3 and len(second.texts) > 3


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"served": ("other",)}, r"are different models: 'other' \(openai\) and 'stub' \(openai\)"),
        ({"weights": 2}, r"'stub' both, but other vectors for the same texts: mean cosine"),
    ],
)
def test_endpoints_of_two_models_are_refused(settings: dict[str, Any], why: str) -> None:
    with stub_engine() as first, stub_engine(**settings) as second:
        with pytest.raises(ModelError, match=why) as caught:
            both(first, second)
        assert first.url in str(caught.value) and second.url in str(caught.value)
        assert "take one out of model.endpoints" in str(caught.value)


def test_endpoint_that_does_not_answer_is_left_out_and_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with stub_engine() as second:
        pass
    with stub_engine() as first, caplog.at_level(logging.WARNING):
        assert both(first, second).urls == (first.url,)
    assert second.url in caplog.text


# What a recipe may hold


@pytest.mark.parametrize(
    "url",
    [
        "http://me:hunter2@host:8000",
        "https://host/v1?api_key=hunter2",
        "https://host/v1#hunter2",
        "http://:hunter2@host",
    ],
)
@pytest.mark.parametrize("field", ["name", "endpoints"])
def test_url_with_a_secret_is_refused_without_repeating_it(
    tmp_path: Path, url: str, field: str
) -> None:
    model = {"name": url} if field == "name" else {"name": "http://host", "endpoints": [url]}
    for load in (
        lambda: recipe_for(tmp_path, model={"dim": None, **model}),
        lambda: Encoder.load(**{"name": "http://host"} | model),
    ):
        with pytest.raises((UsageError, ModelError), match="EMBEDLAKE_ENGINE_TOKEN") as caught:
            load()
        assert "hunter2" not in str(caught.value)


def test_url_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"model.name: the endpoint is no URL; write http://host"):
        recipe_for(tmp_path, model={"name": "http://", "dim": None})


def test_options_of_servers_mean_nothing_for_checkpoints(minilm: str) -> None:
    with pytest.raises(ModelError, match=r"^served 'x' means nothing for the model"):
        describe(minilm, served="x")


def test_tokenizer_path_is_relative_to_the_recipe(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "name: r\nsource: {uri: ./src}\nlake: {uri: ./lake, table: t}\n"
        "model: {name: 'http://host:1', tokenizer: ./tokenizer}\n"
    )
    assert Recipe.load(path).model.tokenizer == str(tmp_path / "tokenizer")


def test_another_model_by_name_leaves_the_servers_options_behind(tmp_path: Path) -> None:
    model = {"name": "http://host", "served": "x", "endpoints": ["http://b"], "max_tokens": 64}
    recipe = recipe_for(tmp_path, model={"dim": None, **model})
    assert recipe.with_model("hashing").model == ModelSpec(name="hashing", max_tokens=64)


# Answers that no model gives


@pytest.mark.parametrize("scale", [0.5, 30.0])
def test_norm_of_the_server_does_not_matter(scale: float) -> None:
    with stub_engine(scale=scale) as engine:
        vectors = parity_vectors(Encoder.load(engine.url, **CAUTIOUS))
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)


@pytest.mark.parametrize(("value", "what"), [(np.nan, "no finite vectors"), (0.0, "zeros")])
def test_describe_server_without_vectors_is_refused(value: float, what: str) -> None:
    with (
        stub_engine(change=lambda rows, _texts: np.full_like(rows, value)) as engine,
        pytest.raises(ModelError, match=f"gives {what} for texts that every model has a vector of"),
    ):
        describe(engine.url, **CAUTIOUS)


@pytest.mark.parametrize(
    ("looks", "kind", "words"),
    [
        (Reply(307, b"", {"Location": "http://elsewhere/info"}), ModelError, "redirects to elsewh"),
        (Reply(401), ModelError, "asks for a token; put it into"),
        (Reply(200, b"<html>", {"Content-Type": "text/html"}), Transient, "text/html that is no"),
        (Reply(200, b'{"model_id": "x', n_bytes=99), Transient, "gave no answer to GET /info"),
        (Reply(500, b"broken"), Transient, "HTTP 500: 'broken'; look at its log"),
    ],
    ids=["redirect", "token", "HTML", "half", "500"],
)
def test_describe_answer_that_tells_no_model_says_why(
    looks: Reply, kind: type[Exception], words: str
) -> None:
    with stub_engine(looks=looks) as engine, pytest.raises(kind, match=words):
        describe(engine.url, **CAUTIOUS)


@pytest.mark.parametrize(
    "entry",
    [
        {"id": None},
        {"id": 5},
        {"id": ""},
        {"id": "\ud800"},
        {"id": "a\nb"},
        {"id": "x" * 10_000},
        "x",
        {},
    ],
)
@pytest.mark.parametrize("api", ["openai", "tei"])
def test_describe_model_that_no_table_can_name_is_refused(api: str, entry: Any) -> None:
    name = entry.get("id") if isinstance(entry, dict) else entry
    answer = {"data": [entry]} if api == "openai" else {"model_id": [] if name == "x" else name}
    looks = Reply(200, json.dumps(answer).encode())
    with stub_engine(api=api, looks=looks) as engine, pytest.raises(ModelError, match="model"):
        describe(engine.url, **CAUTIOUS, api=api)


@pytest.mark.parametrize("limit", [2**31, 10**30, -1, True, "512", 1e3, None])
def test_describe_limit_that_is_none_is_not_believed(limit: object) -> None:
    body = {"data": [{"id": "stub", "max_model_len": limit}]}
    with stub_engine(looks=Reply(200, json.dumps(body).encode())) as engine:
        assert describe(engine.url, **CAUTIOUS, api="openai").space.max_tokens == 512


@pytest.mark.parametrize("name", ["~nobody-of-this-name/x", "./x", "/etc/passwd", "../.."])
def test_describe_server_that_names_a_path_as_its_model_has_no_tokenizer(name: str) -> None:
    with (
        stub_engine(served=(name,)) as engine,
        pytest.raises(ModelError, match=r"nothing here counts the tokens of|is no path"),
    ):
        describe(engine.url)


def test_describe_server_that_refuses_everything_says_what_it_said() -> None:
    with (
        stub_engine(replies=[Reply(400, b"no such thing")] * 9) as engine,
        pytest.raises(
            ModelError, match=r"'no such thing'. It refuses texts that every model takes"
        ),
    ):
        describe(engine.url, **CAUTIOUS)
