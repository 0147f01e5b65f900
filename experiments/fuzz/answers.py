"""Targets: what a server of models answers. A vector that is stored is the one that was answered.

An input is an answer as it goes over the wire: status, headers, body.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import json
import socket
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import stamina

from embedding_core.encoder import Encoder, TextsWithoutVector
from embedding_core.encoder.engines import describe_model, model_spec
from embedding_core.encoder.parity import PARITY_TEXTS
from embedding_core.encoder.remote.encoder import EndpointEncoder
from embedding_core.encoder.remote.endpoint_info import EndpointInfo
from embedding_core.encoder.remote.server import Server
from embedding_core.errors import EmbedlakeError
from embedding_core.protocols import Vectors
from experiments.fuzz.shapes import answer_of, change_body, nest
from experiments.fuzz.target import Check, Target, Wrong

Api = Literal["openai", "tei"]
DIM = 16
TEXTS = ("the longest of these texts", "another text", "words")
"""Longest first, as requests have them; the first parity text goes behind them."""
TOLERANCE = 1e-5
HEADERS = (b"Content-Encoding: gzip\r\n", b"Transfer-Encoding: chunked\r\n",
           b"Content-Length: 5\r\n",
           b"Content-Length: 99999999999\r\n", b"Retry-After: 0\r\n", b"HTTP/1.1 500 no\r\n",
           b"HTTP/1.1 413 no\r\n", b"HTTP/1.1 401 no\r\n", b"HTTP/1.1 302 to\r\nLocation: //x/\r\n",
           b"HTTP/1.1 204 none\r\n", b"HTTP/1.1 100 go on\r\n\r\n", b"\r\n", b"\r\n\r\n", b"\0",
           b"<html>", b"NaN", b"Infinity", b"null", b"true", b'"', b"[", b"]", b"{", b"}", b",",
           b"1e39",
           b"1e400", b"-0", b"1" * 5_000, b'"index": 0', b'"embedding": []', b"AAAA", b"AADAfw==",
           b"\xff", b"\\ud800")  # fmt: skip


def _vectors(texts: Sequence[str]) -> Vectors:
    """(n_texts, DIM) of the model behind the server."""
    return Encoder.load("hashing", dim=DIM).encode_documents(list(texts))


def _good(api: Api, texts: Sequence[str], in_base64: bool = False) -> bytes:
    rows = _vectors(texts)
    written = [_base64(row) if in_base64 else [float(value) for value in row] for row in rows]
    if api == "tei":
        return json.dumps(written).encode()
    data = [{"index": index, "embedding": row} for index, row in enumerate(written)]
    return json.dumps({"object": "list", "data": data, "model": "stub"}).encode()


def _base64(row: npt.NDArray[np.float32]) -> str:
    return base64.b64encode(row.astype("<f4").tobytes()).decode()


def _answers(api: Api) -> Sequence[bytes]:
    """Good answers to a request for the texts and the parity text."""
    texts = (*TEXTS, PARITY_TEXTS[0])
    body = _good(api, texts)
    answers = [
        answer_of(body),
        answer_of(gzip.compress(body, mtime=0), headers="Content-Encoding: gzip\r\n"),
        answer_of(gzip.compress(bytes(2**24), mtime=0), headers="Content-Encoding: gzip\r\n"),
        answer_of(b'{"error": "too long"}', "422 Unprocessable Entity"),
        answer_of(b"<html>come back later</html>", "503 Service Unavailable"),
    ]
    return [*answers, answer_of(_good(api, texts, in_base64=True))] if api == "openai" else answers


class _Wire:
    """A server on loopback that answers with bytes, whatever they are, and hangs up."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.to_posts: bytes | None = None
        """The answer to requests for vectors; None: the right one. Likewise the next."""
        self.to_gets: bytes | None = None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, suppress(OSError):
                connection.sendall(self._answer(*_request(connection)))
                connection.shutdown(socket.SHUT_WR)

    def _answer(self, method: str, path: str, body: bytes) -> bytes:
        if method == "POST":
            return self.to_posts if self.to_posts is not None else self._right(body)
        if self.to_gets is not None:
            return self.to_gets
        if path == "/v1/models" and self.api == "openai":
            return MODELS_ANSWER
        return INFO_ANSWER if self.api == "tei" else answer_of(b"{}", "404 Not Found")

    def _right(self, body: bytes) -> bytes:
        asked = json.loads(body)
        texts = asked["inputs" if self.api == "tei" else "input"]
        return answer_of(_good(self.api, texts, asked.get("encoding_format") == "base64"))


MODELS_ANSWER = answer_of(b'{"object": "list", "data": [{"id": "stub", "max_model_len": 512}]}')
INFO_ANSWER = answer_of(
    b'{"model_id": "stub", "max_input_length": 512, "max_client_batch_size": 32}'
)


def _request(connection: socket.socket) -> tuple[str, str, bytes]:
    """Method, path and body of a request."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += connection.recv(65_536) or b"\r\n\r\n"
    head, _, body = received.partition(b"\r\n\r\n")
    lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    n_bytes = int(lengths[0].split(b":")[1]) if lengths else 0
    while len(body) < n_bytes and (block := connection.recv(65_536)):
        body += block
    method, path, *_ = [*head.decode("latin-1").split(" "), "", ""]
    return method, path, body


@contextmanager
def _wire(api: Api) -> Iterator[_Wire]:
    wire = _Wire(api)
    try:
        # twice, since a connection may be used again that the server is just closing
        with stamina.set_testing(True, attempts=2):
            yield wire
    finally:
        wire.close()


@contextmanager
def _encoding(api: Api, folder: Path) -> Iterator[Check]:
    """Checks answers to requests for vectors."""
    with _wire(api) as wire:
        model = model_spec(wire.url, tokenizer="cautious", api=api)
        info = describe_model(model)
        assert isinstance(info, EndpointInfo)
        servers = [Server(wire.url)]

        def check(data: bytes) -> str:
            wire.to_posts = data
            encoder = EndpointEncoder(info, servers, at_once=1, batch_tokens=10_000)
            try:
                vectors = encoder.encode_documents(list(TEXTS))
            except (EmbedlakeError, TextsWithoutVector) as error:
                return type(error).__name__
            expected = [_unit(answer) for answer in _readings(data, api)]
            if not any(np.allclose(vectors, other, rtol=0, atol=TOLERANCE) for other in expected):
                raise Wrong("vectors that were not answered")
            return "encoded"

        yield check


def _unit(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    kept: npt.NDArray[np.float64] = rows[: len(TEXTS)]
    unit: npt.NDArray[np.float64] = kept / np.linalg.norm(kept, axis=1, keepdims=True)
    return unit


def _readings(data: bytes, api: Api) -> Iterator[npt.NDArray[np.float64]]:
    """What a careful reader takes an answer for; nothing where it is not what was asked for."""
    head, _, body = data.partition(b"\r\n\r\n")
    bodies = [body, *(body[:end] for end in _lengths(head))]
    for content in (*bodies, *(plain for packed in bodies for plain in _unpacked(packed))):
        with suppress(ValueError, KeyError, TypeError, OverflowError, RecursionError):
            yield _read(json.loads(content), api)


def _unpacked(body: bytes) -> Iterator[bytes]:
    """The first member; what follows it is let be, as clients of HTTP do."""
    with suppress(zlib.error):
        yield zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(body)


def _lengths(head: bytes) -> Iterator[int]:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:") and line[15:].strip().isdigit():
            yield int(line[15:].strip()[:12])


def _read(answer: Any, api: Api) -> npt.NDArray[np.float64]:
    rows = answer
    if api == "openai":
        by_index = {row["index"]: row["embedding"] for row in answer["data"]}
        if any(type(index) is not int for index in by_index) or len(by_index) != len(
            answer["data"]
        ):
            raise ValueError("no indexes")
        rows = [by_index[index] for index in range(len(by_index))]
    if len(rows) != len(TEXTS) + 1:
        raise ValueError("another number of vectors")
    return np.stack([_numbers(row) for row in rows])


def _numbers(row: Any) -> npt.NDArray[np.float64]:
    if isinstance(row, str):
        try:
            values = np.frombuffer(base64.b64decode(row, validate=True), "<f4").astype(np.float64)
        except binascii.Error as error:
            raise ValueError("no base64") from error
    elif isinstance(row, list) and all(type(value) in (int, float) for value in row):
        values = np.array(row, np.float64)
    else:
        raise ValueError("no list of numbers")
    if values.shape != (DIM,) or not np.isfinite(values).all() or not values.any():
        raise ValueError("no vector")
    return values


@contextmanager
def _describing(api: Api, folder: Path) -> Iterator[Check]:
    """Checks what a server says of itself."""
    with _wire(api) as wire:
        right = _vectors(PARITY_TEXTS[:1])[0]

        def check(data: bytes) -> str:
            wire.to_gets = data
            try:
                info = describe_model(model_spec(wire.url, tokenizer="cautious", api=api))
            except EmbedlakeError as error:
                return type(error).__name__
            if info.space.dim != DIM or not 8 <= info.space.max_tokens <= 2**31:
                raise Wrong(f"described as {info.space}")
            info.space.model.encode()
            if not np.allclose(getattr(info, "probe"), right, atol=TOLERANCE):  # noqa: B009
                raise Wrong("another vector of the first parity text")
            return "described"

        yield check


def _target(name: str, api: Api, seeds: Callable[[], Sequence[bytes]], opened: Any) -> Target:
    return Target(
        name, seeds, partial(opened, api), HEADERS, (change_body, change_body, nest(b"[", b"]"))
    )


OPENAI = _target("openai", "openai", partial(_answers, "openai"), _encoding)
TEI = _target("tei", "tei", partial(_answers, "tei"), _encoding)
MODELS = _target("models", "openai", lambda: (MODELS_ANSWER,), _describing)
INFO = _target("info", "tei", lambda: (INFO_ANSWER,), _describing)
