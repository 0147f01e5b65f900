"""A server of a model for what clients meet: OpenAI's and TEI's forms, limits and faults.

TEI's answers are those of its own documentation: 413 for too many texts, 422 for a text that is too
long, 424 for a failed forward pass, 429 for a full queue.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

import numpy as np

from embedding_core.encoder import Encoder
from tests.sources.loopback import loopback_server

DIM = 48


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer in the place of the real one."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    n_bytes: int | None = None
    """Length that is announced; the connection is closed after the body."""
    drops: threading.Event | None = None
    """Has a byte sent every 20 ms until it is set, as an answer that never ends."""


@dataclass(slots=True)
class StubEngine:
    """The server's model, its limits, and the faults it shows."""

    url: str
    api: str = "openai"
    served: tuple[str, ...] = ("stub",)
    weights: int = 0
    """Other weights give other vectors under the same name."""
    dim: int = DIM
    scale: float = 1.0
    """Length of every vector."""
    noise: float = 0.0
    """Added to every value, another one each time."""
    max_tokens: int = 512
    """Words of a text; more is refused."""
    max_texts: int = 32
    takes_base64: bool = True
    token: str | None = None
    """Asked for when there is one."""
    looks: Reply | None = None
    """Given to whoever asks what is served."""
    replies: list[Reply] = field(default_factory=list)
    """Given to the next requests for vectors."""
    change: Callable[[np.ndarray, Sequence[str]], Any] | None = None
    """Makes other vectors of the right ones."""
    before: Callable[[StubEngine, Sequence[str]], Reply | None] | None = None
    """Called before a request for vectors is answered; may answer it."""
    texts: list[list[str]] = field(default_factory=list)
    """Of each request for vectors."""
    tokens: list[str | None] = field(default_factory=list)
    """The Authorization header of every request."""
    most_at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    under_way: int = 0

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        """(n_texts, dim) as the model makes them."""
        rows = Encoder.load("hashing", dim=self.dim).encode_documents(
            [f"{self.weights or ''}{text}" for text in texts]
        )
        if self.weights:
            rows = np.roll(rows, self.weights, axis=1)
        if self.noise:
            rows = rows + np.random.default_rng().normal(0, self.noise, rows.shape)
        return np.asarray(rows * self.scale, np.float32)


@contextmanager
def stub_engine(**settings: Any) -> Iterator[StubEngine]:
    """Run the server on a free loopback port."""
    with loopback_server(_Handler) as server:
        engine = StubEngine(f"http://127.0.0.1:{server.server_port}", **settings)
        server.engine = engine  # type: ignore[attr-defined]
        yield engine


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        engine: StubEngine = self.server.engine  # type: ignore[attr-defined]
        if self._is_denied(engine):
            return
        if engine.looks is not None:
            self._send(engine.looks)
        elif self.path == "/v1/models" and engine.api == "openai":
            entries = [{"id": name, "max_model_len": engine.max_tokens} for name in engine.served]
            self._json({"object": "list", "data": entries})
        elif self.path == "/info" and engine.api == "tei":
            self._json(
                {
                    "model_id": engine.served[0],
                    "model_dtype": "float16",
                    "max_input_length": engine.max_tokens,
                    "max_client_batch_size": engine.max_texts,
                    "auto_truncate": False,
                }
            )
        else:
            self._send(Reply(404, b'{"error": "not found"}'))

    def do_POST(self) -> None:
        engine: StubEngine = self.server.engine  # type: ignore[attr-defined]
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self._is_denied(engine):
            return
        is_tei = engine.api == "tei"
        if self.path != ("/embed" if is_tei else "/v1/embeddings"):
            self._send(Reply(404))
            return
        texts = body["inputs" if is_tei else "input"]
        with engine.lock:
            engine.under_way += 1
            engine.most_at_once = max(engine.most_at_once, engine.under_way)
            engine.texts.append(texts)
        try:
            reply = self._reply(engine, body, texts)
        finally:
            with engine.lock:
                engine.under_way -= 1
        self._send(reply)

    def _reply(self, engine: StubEngine, body: dict[str, Any], texts: list[str]) -> Reply:
        if engine.replies:
            return engine.replies.pop(0)
        if engine.before is not None and (reply := engine.before(engine, texts)) is not None:
            return reply
        if (refused := _refused(engine, body, texts)) is not None:
            return refused
        rows = engine.vectors(texts)
        if engine.change is not None:
            rows = engine.change(rows, texts)
        if engine.api == "tei":
            return _as_json([_numbers(row) for row in rows])
        in_base64 = body["encoding_format"] == "base64"
        data = [
            {"index": i, "embedding": _base64(row) if in_base64 else _numbers(row)}
            for i, row in enumerate(rows)
        ]
        return _as_json({"object": "list", "data": data[::-1], "model": body["model"]})

    def _is_denied(self, engine: StubEngine) -> bool:
        engine.tokens.append(self.headers.get("Authorization"))
        if engine.token is None or engine.tokens[-1] == f"Bearer {engine.token}":
            return False
        self._send(
            Reply(401, b'{"error": "no such key: ' + str(engine.tokens[-1]).encode() + b'"}')
        )
        return True

    def _json(self, value: object) -> None:
        self._send(_as_json(value))

    def _send(self, reply: Reply) -> None:
        self.send_response_only(reply.status)  # without a Date
        if reply.drops is not None:
            self.end_headers()
            with suppress(OSError):
                while not reply.drops.wait(0.02):
                    self.wfile.write(b" ")
            self.close_connection = True
            return
        n_bytes = len(reply.body) if reply.n_bytes is None else reply.n_bytes
        for name, value in ({"Content-Length": str(n_bytes)} | reply.headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(reply.body)
        self.close_connection |= reply.n_bytes is not None

    def log_message(self, format: str, *args: object) -> None:
        pass


def _refused(engine: StubEngine, body: dict[str, Any], texts: list[str]) -> Reply | None:
    """What a real server says to a request that is beyond its limits."""
    is_tei = engine.api == "tei"
    if len(texts) > engine.max_texts and is_tei:
        return _error(413, f"batch size {len(texts)} > maximum allowed batch size")
    if body.get("encoding_format") == "base64" and not engine.takes_base64:
        return _error(400, "encoding_format must be float")
    longest = max((len(text.split()) for text in texts), default=0)
    if longest > engine.max_tokens:
        return _error(422 if is_tei else 400, f"inputs must have less than {engine.max_tokens}")
    return None


def _error(status: int, message: str) -> Reply:
    return Reply(status, json.dumps({"error": message, "error_type": "Validation"}).encode())


def _as_json(value: object) -> Reply:
    return Reply(200, json.dumps(value).encode(), {"Content-Type": "application/json"})


def _base64(row: np.ndarray) -> str:
    return base64.b64encode(np.asarray(row, "<f4").tobytes()).decode()


def _numbers(row: np.ndarray) -> list[float]:
    return [float(value) for value in row]
