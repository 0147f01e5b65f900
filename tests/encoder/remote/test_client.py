"""The client at work: order, budgets, limits, and every fault that a server can show."""

from __future__ import annotations

import json
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from embedding_core.encoder import Encoder, InvalidText, TextsWithoutVector
from embedding_core.encoder.engines import describe_model, load_model, model_spec
from embedding_core.encoder.parity import PARITY_TEXTS
from embedding_core.encoder.remote.concurrency import FIRST_LIMIT
from embedding_core.encoder.remote.credentials import token_for
from embedding_core.encoder.remote.encoder import EndpointEncoder
from embedding_core.encoder.remote.server import Overloaded, Server
from embedding_core.errors import ModelError, Transient
from embedding_core.recipe import Resources
from tests.encoder.remote.stub_engine import Reply, StubEngine, stub_engine

TEXTS = [f"text number {i} " + "word " * (i % 7) for i in range(100)]
DATE = "Wed, 21 Oct 2015 07:28:00 GMT"
HTML = Reply(200, b"<html>come back later</html>", {"Content-Type": "text/html"})


@pytest.fixture
def engine() -> Iterator[StubEngine]:
    with stub_engine() as engine:
        yield engine


def encoder_of(engine: StubEngine, at_once: int = 4, batch_tokens: int = 64, **options: Any) -> Any:
    """The encoder; what was asked to describe the model is forgotten."""
    model = model_spec(engine.url, tokenizer="cautious", **options)
    info = describe_model(model)
    encoder = load_model(info, model, Resources(at_once=at_once, batch_tokens=batch_tokens))
    engine.texts.clear()
    engine.most_at_once = 0
    return encoder


def test_vectors_come_in_input_order_whatever_the_requests(engine: StubEngine) -> None:
    encoded = encoder_of(engine).encode(TEXTS)
    np.testing.assert_allclose(encoded.vectors, engine.vectors(TEXTS), atol=1e-6)
    assert len(engine.texts) > 10


@pytest.mark.parametrize("api", ["openai", "tei"])
def test_requests_keep_to_the_budget_and_to_the_servers_limit(api: str) -> None:
    with stub_engine(api=api, max_texts=5) as engine:
        encoder = encoder_of(engine, batch_tokens=40)
        encoder.encode_documents([*TEXTS, "long " * 60])
        for texts in engine.texts:
            n_tokens = sum(encoder.tokenizer.count(texts[:-1]))
            assert n_tokens <= 40 or len(texts) == 2
            assert texts[-1] == PARITY_TEXTS[0]
            assert api == "openai" or len(texts) <= 5


def test_text_that_is_too_long_is_cut_here(engine: StubEngine) -> None:
    encoder = encoder_of(engine, max_tokens=20)
    encoded = encoder.encode(["wor " * 100, "short"])
    assert (encoded.n_truncated, encoded.n_tokens) == (
        1,
        20 + encoder.tokenizer.count(["short"])[0],
    )
    (sent,) = [text for texts in engine.texts for text in texts if text.startswith("wor ")]
    assert encoder.tokenizer.count([sent]) == [20]


def test_stream_is_read_while_requests_are_under_way(engine: StubEngine) -> None:
    """The source gives its second half only when the server was asked for the first."""
    asked = threading.Event()

    def note(_engine: StubEngine, texts: Sequence[str]) -> None:
        asked.set()

    encoder = encoder_of(engine, batch_tokens=16)
    engine.before = note

    def batches() -> Iterator[list[str]]:
        yield TEXTS[:50]
        yield []
        yield TEXTS[50:60]
        assert asked.wait(20)
        yield TEXTS[60:]

    got = list(encoder.encode_stream(batches()))
    assert [batch.num_rows for batch in got] == [50, 0, 10, 40]
    vectors = np.concatenate(
        [batch.column("vector").flatten().to_numpy().reshape(-1, 48) for batch in got]
    )
    np.testing.assert_allclose(vectors, engine.vectors(TEXTS), atol=1e-6)


def test_stream_is_read_only_so_far_ahead(engine: StubEngine) -> None:
    encoder = encoder_of(engine, at_once=1, batch_tokens=8)
    n_read = 0

    def batches() -> Iterator[list[str]]:
        nonlocal n_read
        for number in range(1_000):
            n_read += 1
            yield [f"text {number}"]

    stream = encoder.encode_stream(batches())
    next(stream)
    stream.close()
    assert n_read < 200


def test_at_once_bounds_the_requests(engine: StubEngine) -> None:
    encoder = encoder_of(engine, at_once=3, batch_tokens=8)
    encoder.encode_documents(TEXTS * 3)
    assert 1 <= engine.most_at_once <= 3


def test_text_that_is_no_text_is_named(engine: StubEngine) -> None:
    encoder = encoder_of(engine)
    with pytest.raises(InvalidText, match=r"text 1 is a int; pass strings"):
        encoder.encode(["fine", 3])
    with pytest.raises(InvalidText, match=r"text 2 of batch 1 is not valid Unicode"):
        list(encoder.encode_stream([["fine"], ["a", "b", "\ud800"]]))


def at_most(n_texts: int) -> Callable[[StubEngine, Sequence[str]], Reply | None]:
    """Refuses requests of more texts, as TEI does behind OpenAI's form."""
    message = f"batch size > maximum allowed batch size {n_texts}"
    refused = Reply(422, json.dumps({"error": message, "error_type": "Validation"}).encode())
    return lambda _engine, texts: refused if len(texts) > n_texts else None


@pytest.mark.parametrize("most", [1, 10])
def test_server_that_takes_fewer_texts_than_it_was_asked_for_gets_no_more_from_then_on(
    engine: StubEngine, most: int
) -> None:
    """It took the eight texts that describe it, and was started again since."""
    encoder = encoder_of(engine, at_once=1, batch_tokens=4_096)
    engine.before = at_most(most)
    np.testing.assert_allclose(encoder.encode_documents(TEXTS), engine.vectors(TEXTS), atol=1e-6)
    engine.texts.clear()
    np.testing.assert_allclose(encoder.encode_documents(TEXTS), engine.vectors(TEXTS), atol=1e-6)
    assert max(map(len, engine.texts)) <= most


def test_text_that_is_refused_does_not_make_requests_small(engine: StubEngine) -> None:
    encoder = encoder_of(engine, at_once=1, batch_tokens=4_096)
    engine.before = lambda _engine, texts: Reply(400, b"too long") if "bad" in texts else None
    (batch,) = encoder.encode_stream([[*TEXTS, "bad"]])
    assert batch.column("failure").null_count == len(TEXTS)
    engine.texts.clear()
    encoder.encode_documents(TEXTS)
    assert max(map(len, engine.texts)) > 50


def test_model_of_a_server_of_one_text_that_changes_is_noticed(engine: StubEngine) -> None:
    """No request has room for the fixed text beside its own."""
    encoder = encoder_of(engine, at_once=1, batch_tokens=16)
    engine.before = at_most(1)
    encoder.encode_documents(TEXTS)
    engine.weights = 7
    with pytest.raises(ModelError, match=r"other vectors than when the task began: cosine"):
        encoder.encode_documents(TEXTS)


# Faults that pass


@pytest.mark.parametrize(
    "fault",
    [
        Reply(429, b"", {"Retry-After": "0.01"}),
        Reply(429),
        Reply(503),
        Reply(500, b"oops"),
        Reply(502, b"<html>bad gateway</html>"),
        HTML,
        Reply(200, b'{"data": [{"index": 0, "embed', n_bytes=5_000),
        Reply(200, b'{"data": [{"index": 0}]}'),
        Reply(200, b'{"error": "loading"}'),
        Reply(200, b"[" * 100_000),
        Reply(200, b'{"data": [{"index": 0, "embedding": [1' + b"0" * 400 + b"]}]}"),
        Reply(429, b"", {"Retry-After": "\u00b2"}),
    ],
    ids=[
        "429 for a while",
        "429",
        "503",
        "500",
        "502",
        "HTML",
        "half",
        "no vector",
        "no data",
        "deep",
        "huge number",
        "no pause",
    ],
)
def test_fault_that_passes_costs_nothing(engine: StubEngine, fault: Reply) -> None:
    encoder = encoder_of(engine)
    engine.replies = [fault, fault]
    np.testing.assert_allclose(encoder.encode_documents(TEXTS), engine.vectors(TEXTS), atol=1e-6)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Reply(429), "HTTP 429: it has too much to do"),
        (Reply(429, b"", {"Retry-After": "3600"}), "HTTP 429: it has too much to do"),
        (Reply(500, b"broken"), "HTTP 500: 'broken'; look at its log"),
        (HTML, "text/html that is no JSON, or half of it; look whether the URL"),
        (Reply(200, b"[", n_bytes=100), "gave no answer to POST /v1/embeddings"),
    ],
    ids=["429", "429 for an hour", "500", "HTML", "half"],
)
def test_fault_that_stays_is_transient_and_says_what_to_do(
    engine: StubEngine, fault: Reply, words: str
) -> None:
    encoder = encoder_of(engine)
    engine.before = lambda _engine, _texts: fault
    with pytest.raises(Transient) as caught:
        encoder.encode_documents(TEXTS)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "numbers",
    [lambda n: [0] * n, lambda n: range(1, n + 1), lambda n: [i // 2 for i in range(n)]],
    ids=["all the same", "from 1", "twice"],
)
def test_answer_whose_vectors_are_wrongly_numbered_is_not_taken(
    engine: StubEngine, numbers: Callable[[int], Sequence[int]]
) -> None:
    encoder = encoder_of(engine)

    def misnumbered(_engine: StubEngine, texts: Sequence[str]) -> Reply:
        rows = zip(numbers(len(texts)), engine.vectors(texts).tolist(), strict=True)
        data = [{"index": index, "embedding": row} for index, row in rows]
        return Reply(200, json.dumps({"data": data}).encode())

    engine.before = misnumbered
    with pytest.raises(Transient, match=rf"{engine.url} .* are not numbered from 0 to 3"):
        encoder.encode_documents(TEXTS[:3])


def test_server_that_wants_an_hour_keeps_nobody_waiting(engine: StubEngine) -> None:
    """Requests that waited for room end with the work, and the next work asks the server again."""
    encoder = encoder_of(engine)
    engine.before = lambda _engine, _texts: Reply(429, b"", {"Retry-After": "3600"})
    before = {*threading.enumerate()}
    with pytest.raises(Transient):
        encoder.encode_documents(TEXTS)
    for thread in {*threading.enumerate()} - before:
        if thread.name.startswith("embedlake-requests"):
            thread.join(20)
            assert not thread.is_alive()


def test_answer_that_trickles_in_is_given_up(engine: StubEngine) -> None:
    """Each byte comes in time, the answer does not."""
    describe = describe_model(model_spec(engine.url, tokenizer="cautious"))
    servers = [Server(engine.url, answer_seconds=0.5)]
    impatient = EndpointEncoder(describe, servers, at_once=1, batch_tokens=None)
    over = threading.Event()
    engine.before = lambda _engine, _texts: Reply(200, drops=over)
    try:
        with pytest.raises(Transient, match=r"within 0.5 s; look whether it hangs"):
            impatient.encode_documents(["a"])
    finally:
        over.set()


def test_server_that_hangs_leaves_its_work_to_the_other(engine: StubEngine) -> None:
    """The other has no more room than before; a request is not sent to the one that hangs again."""
    over = threading.Event()
    with stub_engine() as other:
        info = describe_model(model_spec(engine.url, tokenizer="cautious", endpoints=(other.url,)))
        servers = [Server(engine.url, answer_seconds=0.3), Server(other.url)]
        encoder = EndpointEncoder(info, servers, at_once=4, batch_tokens=16)
        engine.texts.clear()
        engine.before = lambda _engine, _texts: over.wait(30) and None  # type: ignore[func-returns-value]
        try:
            vectors = encoder.encode_documents(TEXTS)
        finally:
            over.set()
        np.testing.assert_allclose(vectors, other.vectors(TEXTS), atol=1e-6)
        assert len(engine.texts) <= FIRST_LIMIT


def test_server_that_is_starting_leaves_the_work_to_the_other(engine: StubEngine) -> None:
    with stub_engine() as other:
        other.before = lambda _engine, _texts: Reply(503, b"", {"Retry-After": "60"})
        encoder = encoder_of(engine, endpoints=(other.url,))
        assert len(encoder.encode_documents(["a"])) == 1


def test_server_that_fails_by_chance_loses_no_text(engine: StubEngine) -> None:
    encoder = encoder_of(engine)
    fails = [True, False, True, True]  # the text, the probe, the text twice

    def by_chance(_engine: StubEngine, _texts: Sequence[str]) -> Reply | None:
        return Reply(500, b"oops") if fails and fails.pop(0) else None

    engine.before = by_chance
    np.testing.assert_allclose(encoder.encode_documents(["a"]), engine.vectors(["a"]), atol=1e-6)
    assert fails == []


def test_server_that_hangs_is_given_up(engine: StubEngine) -> None:
    encoder = encoder_of(engine)
    over = threading.Event()

    def hang(_engine: StubEngine, _texts: Sequence[str]) -> None:
        over.wait(20)

    impatient = EndpointEncoder(
        describe_model(model_spec(engine.url, tokenizer="cautious")),
        [Server(engine.url, answer_seconds=0.2)],
        at_once=1,
        batch_tokens=None,
    )
    engine.before = hang
    try:
        with pytest.raises(Transient, match=r"within 0.2 s; look whether it hangs"):
            impatient.encode_documents(["a"])
    finally:
        over.set()
    engine.before = None
    assert len(encoder.encode_documents(["a"])) == 1


def test_server_that_goes_leaves_its_work_to_the_other(engine: StubEngine) -> None:
    with stub_engine() as other:
        encoder = encoder_of(engine, endpoints=(other.url,), batch_tokens=16)
    np.testing.assert_allclose(encoder.encode_documents(TEXTS), engine.vectors(TEXTS), atol=1e-6)


# Faults that a person must heal


@pytest.mark.parametrize("status", [401, 403])
def test_token_that_expires_stops_the_work(
    engine: StubEngine, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setenv("EMBEDLAKE_ENGINE_TOKEN", "hunter2")
    engine.token = "hunter2"
    encoder = encoder_of(engine)
    encoder.encode_documents(["fine"])
    engine.replies = [Reply(status, b"key hunter2 has expired")] * 50
    with pytest.raises(ModelError, match=r"expired or is another server's: renew it") as caught:
        encoder.encode_documents(TEXTS)
    assert "hunter2" not in str(caught.value)


def test_token_that_is_missing_is_asked_for(engine: StubEngine) -> None:
    engine.token = "hunter2"
    with pytest.raises(ModelError, match=r"put it into the environment variable EMBEDLAKE_ENGINE"):
        encoder_of(engine)


def test_token_goes_to_its_host_alone(engine: StubEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    port = engine.url.rpartition(":")[2]
    tokens = f"elsewhere.example=other, 127.0.0.1:{port}=mine=="
    monkeypatch.setenv("EMBEDLAKE_ENGINE_TOKEN", tokens)
    engine.token = "mine=="
    encoder_of(engine)
    monkeypatch.setenv("EMBEDLAKE_ENGINE_TOKEN", "elsewhere.example=other")
    engine.token = None
    engine.tokens.clear()
    encoder_of(engine)
    assert set(engine.tokens) == {None}


def test_token_goes_to_a_host_whatever_its_case_and_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDLAKE_ENGINE_TOKEN", "API.example.com=a,[::1]:8000=b==,[::2]=c")
    assert token_for("https://api.Example.com/v1") == "a"
    assert token_for("https://api.example.com:8443") == "a"
    assert token_for("http://[::1]:8000") == "b=="
    assert token_for("http://[::1]:8001") is None
    assert token_for("http://[::2]:8001") == "c"


@pytest.mark.parametrize(
    "tokens",
    ["https://api.example.com=hunter2", "hunter2\nhunter2", "hunter2 hunter2", "hunter2\u00e9",
     "fine=ok, host/path=hunter2", "a=b=hunter2"],
)  # fmt: skip
def test_token_that_cannot_be_read_is_refused_without_repeating_it(
    engine: StubEngine, monkeypatch: pytest.MonkeyPatch, tokens: str
) -> None:
    encoder = encoder_of(engine)
    engine.tokens.clear()
    monkeypatch.setenv("EMBEDLAKE_ENGINE_TOKEN", tokens)
    with pytest.raises(ModelError, match=r"neither a token nor host=token; write") as caught:
        encoder.encode_documents(["a"])
    said = "".join(traceback.format_exception(caught.value))
    assert "hunter2" not in said.replace(repr(tokens), "") and engine.tokens == []


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": " 0.5 "}, 0.5),
        ({"Retry-After": DATE, "Date": "Wed, 21 Oct 2015 07:27:30 GMT"}, 30.0),
        ({"Retry-After": DATE, "Date": "soon"}, 0.0),
        ({"Retry-After": DATE}, 0.0),
        ({"Retry-After": "soon"}, 0.0),
        ({}, 0.0),
    ],
)
def test_pause_that_a_server_asks_for_is_kept(
    engine: StubEngine, headers: dict[str, str], seconds: float
) -> None:
    """A date is read by the server's clock; without one by ours, for which 2015 is over."""
    engine.replies = [Reply(429, b"", headers)]
    with pytest.raises(Overloaded) as caught:
        Server(engine.url).post("/v1/embeddings", {"input": ["a"]})
    assert caught.value.pause_seconds == seconds


def test_redirect_to_no_url_is_said(engine: StubEngine) -> None:
    encoder = encoder_of(engine)
    engine.replies = [Reply(307, b"", {"Location": "http://[bad"})]
    with pytest.raises(ModelError, match=r"it redirects, and a token goes nowhere"):
        encoder.encode_documents(["a"])


def test_token_is_in_no_record(engine: StubEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDLAKE_ENGINE_TOKEN", "hunter2")
    engine.token = "hunter2"
    model = model_spec(engine.url, tokenizer="cautious")
    info = describe_model(model)
    encoder = load_model(info, model, Resources())
    assert "hunter2" not in f"{info!r} {encoder!r} {model!r} {vars(encoder)!r}"


def test_redirect_to_another_host_gets_nothing(
    engine: StubEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBEDLAKE_ENGINE_TOKEN", "hunter2")
    with stub_engine() as elsewhere:
        encoder = encoder_of(engine)
        target = f"{elsewhere.url}/v1/embeddings?secret=1"
        engine.replies = [Reply(307, b"", {"Location": target})] * 50
        with pytest.raises(ModelError, match=r"redirects to 127.0.0.1:\d+, and a token") as caught:
            encoder.encode_documents(["a"])
        assert "secret" not in str(caught.value)
        assert elsewhere.tokens == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows, texts: rows[:-1], r"gives 1 vector for 2 texts"),
        (lambda rows, texts: np.vstack([rows, rows]), r"gives 4 vectors for 2 texts"),
        (lambda rows, texts: rows[:, :-1], r"vectors of 47 values where it gave 48"),
    ],
    ids=["fewer", "more", "other dimension"],
)
def test_answer_of_another_shape_stops_the_work(
    engine: StubEngine, change: Callable[..., Any], words: str
) -> None:
    encoder = encoder_of(engine)
    engine.change = change
    with pytest.raises(ModelError, match=words):
        encoder.encode_documents(["a"])


NO_VECTORS: list[Any] = [
    [True] * 48,
    ["1.0"] * 48,
    [[1.0]] * 48,
    {str(n): 1.0 for n in range(48)},
    {},
    None,
    "AAA",
    "not base64!",
    5,
]


@pytest.mark.parametrize("row", NO_VECTORS, ids=lambda row: str(row)[:16])
@pytest.mark.parametrize("api", ["openai", "tei"])
def test_answer_of_values_that_are_no_numbers_is_no_vector(api: str, row: Any) -> None:
    with stub_engine(api=api) as engine:
        encoder = encoder_of(engine)
        rows = [row, row]
        data = [{"index": index, "embedding": row} for index, row in enumerate(rows)]
        body = json.dumps({"data": data} if api == "openai" else rows).encode()
        engine.replies = [Reply(200, body)] * 9
        with pytest.raises((ModelError, Transient), match=r"no vectors that can be read|gives"):
            encoder.encode_documents(["a"])


@pytest.mark.parametrize(
    "indexes", [[True, False], [0.0, 1.0], ["0", "1"], [0, 0], [1, 2], [-1, 0]]
)
def test_answer_whose_vectors_are_not_numbered_is_no_vector(
    engine: StubEngine, indexes: list[Any]
) -> None:
    encoder = encoder_of(engine)
    rows = engine.vectors(["a", PARITY_TEXTS[0]]).tolist()
    data = [{"index": n, "embedding": row} for n, row in zip(indexes, rows, strict=True)]
    engine.replies = [Reply(200, json.dumps({"data": data}).encode())] * 9
    with pytest.raises(Transient, match="are not numbered from 0 to 1"):
        encoder.encode_documents(["a"])


def test_model_that_changes_between_two_requests_is_noticed(engine: StubEngine) -> None:
    encoder = encoder_of(engine, at_once=1, batch_tokens=16)

    def swap(engine: StubEngine, _texts: Sequence[str]) -> None:
        if len(engine.texts) == 5:
            engine.weights = 7

    engine.before = swap
    with pytest.raises(
        ModelError, match=r"other vectors than when the task began: cosine"
    ) as caught:
        encoder.encode_documents(TEXTS)
    assert caught.value.action == "reembed"


# Texts without a vector


@pytest.mark.parametrize(("value", "reason"), [(np.nan, "non_finite_vector"), (0, "zero_vector")])
def test_text_without_a_direction_has_no_vector(
    engine: StubEngine, value: float, reason: str
) -> None:
    def spoilt(rows: np.ndarray, texts: Sequence[str]) -> np.ndarray:
        rows[[i for i, text in enumerate(texts) if text == "bad"]] = value
        return rows

    encoder = encoder_of(engine)
    engine.change = spoilt
    (batch,) = encoder.encode_stream([["good", "bad", "fine"]])
    assert batch.column("failure").to_pylist() == [None, reason, None]
    assert batch.column("vector").is_null().to_pylist() == [False, True, False]
    with pytest.raises(TextsWithoutVector, match=r"at input positions 1"):
        encoder.encode(["good", "bad", "fine"])


@pytest.mark.parametrize("api", ["openai", "tei"])
def test_text_that_the_server_finds_too_long_is_alone_without_a_vector(api: str) -> None:
    with stub_engine(api=api) as engine:
        encoder = encoder_of(engine, batch_tokens=4_096)
        engine.max_tokens = 50  # words, of which it said that it takes 512
        texts = [*TEXTS[:20], "a " * 60, *TEXTS[20:25]]
        (batch,) = encoder.encode_stream([texts])
    failures = batch.column("failure").to_pylist()
    assert [i for i, failure in enumerate(failures) if failure] == [20]
    assert failures[20] == "refused_by_server"


def test_text_over_which_the_server_fails_is_alone_without_a_vector(engine: StubEngine) -> None:
    encoder = encoder_of(engine, batch_tokens=4_096)
    engine.before = lambda _engine, texts: (
        Reply(500, b"input too large") if "bad" in texts else None
    )
    (batch,) = encoder.encode_stream([[*TEXTS[:9], "bad"]])
    assert batch.column("failure").to_pylist() == [*[None] * 9, "refused_by_server"]


def test_server_that_refuses_all_from_now_on_stops_the_work(engine: StubEngine) -> None:
    encoder = encoder_of(engine)
    engine.before = lambda _engine, _texts: Reply(400, b"no")
    with pytest.raises(ModelError, match=r"It took this text when the task began"):
        encoder.encode_documents(TEXTS)


def test_encoder_repr_names_the_server(engine: StubEngine) -> None:
    assert f"stub at {engine.url}" in repr(Encoder.load(engine.url, tokenizer="cautious"))
