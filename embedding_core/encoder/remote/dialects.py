"""What servers speak: OpenAI's ``/v1/embeddings``, and ``/embed`` of Text Embeddings Inference.

A dialect learns what a server serves, writes requests and reads answers. It never asks the server
to cut a text, to put a prompt before it or to shorten a vector: that is done here.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from embedding_core.encoder.remote.server import NoRoute, RefusedRequest, Server
from embedding_core.errors import ModelError
from embedding_core.plurals import counted

Answered = npt.NDArray[np.float32]
"""(n_texts, n_values) as the server gives them: any length, perhaps not finite."""

MOST_TEXTS = 256
"""Texts of a request, where the server does not say how many it takes."""
TEI_MOST_TEXTS = 32
"""TEI's own default."""
LONGEST_NAME = 500
"""Characters of a server's id of a model."""
FAULTS_OF_FORM = (KeyError, TypeError, ValueError, OverflowError)
"""What comes of reading an answer of another form; ``binascii.Error`` is a ``ValueError``."""


@dataclass(frozen=True, slots=True)
class Served:
    """A model at a server, as the server describes it."""

    api: str
    """Name of the dialect."""
    model: str
    """The server's id of the model."""
    max_tokens: int | None = None
    """Longest input that it takes; None where it does not say."""
    most_texts: int = MOST_TEXTS
    """Texts of a request."""


class Dialect(Protocol):
    """One way to ask for vectors."""

    def served(self, server: Server, model: str | None) -> Served:
        """What the server serves; ``model`` chooses among several. Raises ``NoRoute`` where the
        server speaks another dialect, ``ModelError`` when the choice is not clear."""
        ...

    def request(
        self, texts: Sequence[str], model: str, in_base64: bool
    ) -> tuple[str, Mapping[str, Any]]:
        """Path and body of a request."""
        ...

    def vectors(self, answer: Any) -> Answered:
        """The vectors of an answer, in the order of its texts. Raises ``ValueError``."""
        ...


class OpenAI:
    """``/v1/embeddings``: vLLM, llama.cpp, most clouds, and TEI too."""

    def served(self, server: Server, model: str | None) -> Served:
        """See ``Dialect``. With ``model`` a server may be without ``/v1/models``."""
        try:
            answer = server.get("/v1/models")
        except (NoRoute, RefusedRequest):
            if model is None:
                raise
            return Served("openai", model)
        entries = answer.get("data") if isinstance(answer, dict) else None
        if not isinstance(entries, list):
            raise NoRoute(f"{server.url}/v1/models lists no models; correct the URL in model.name")
        by_id = {entry["id"]: entry for entry in entries if _is_entry(entry)}
        chosen = _chosen(server.url, list(by_id), model)
        return Served("openai", chosen, _max_tokens(by_id[chosen]))

    def request(
        self, texts: Sequence[str], model: str, in_base64: bool
    ) -> tuple[str, Mapping[str, Any]]:
        """See ``Dialect``."""
        encoding = "base64" if in_base64 else "float"
        body = {"model": model, "input": list(texts), "encoding_format": encoding}
        return "/v1/embeddings", body

    def vectors(self, answer: Any) -> Answered:
        """See ``Dialect``. Values may be floats though base64 was asked for."""
        try:
            by_index = {row["index"]: _values(row["embedding"]) for row in answer["data"]}
            n_texts = len(answer["data"])
        except FAULTS_OF_FORM as error:
            raise _not_vectors(error) from error
        if by_index.keys() != set(range(n_texts)) or not _are(by_index, int):
            raise ValueError(
                f"its {counted(n_texts, 'vector is', 'vectors are')} not numbered from 0 to "
                f"{n_texts - 1}"
            )
        return _stacked([by_index[index] for index in range(n_texts)])


class TEI:
    """``/embed`` of Text Embeddings Inference."""

    def served(self, server: Server, model: str | None) -> Served:
        """See ``Dialect``."""
        info = server.get("/info")
        if not isinstance(info, dict) or not _is_name(info.get("model_id")):
            raise NoRoute(f"{server.url}/info names no model_id; correct the URL in model.name")
        chosen = _chosen(server.url, [info["model_id"]], model)
        most_texts = _whole(info.get("max_client_batch_size")) or TEI_MOST_TEXTS
        return Served("tei", chosen, _whole(info.get("max_input_length")), most_texts)

    def request(
        self, texts: Sequence[str], model: str, in_base64: bool
    ) -> tuple[str, Mapping[str, Any]]:
        """See ``Dialect``. A server has one model, and knows no base64."""
        return "/embed", {"inputs": list(texts), "truncate": False, "normalize": True}

    def vectors(self, answer: Any) -> Answered:
        """See ``Dialect``."""
        try:
            return _stacked([_values(row) for row in answer])
        except FAULTS_OF_FORM as error:
            raise _not_vectors(error) from error


DIALECTS: Mapping[str, Dialect] = {"tei": TEI(), "openai": OpenAI()}
"""Every dialect by ``model.api``, in the order in which an unknown server is asked: TEI answers to
both."""


def learn(server: Server, api: str | None, model: str | None) -> Served:
    """What a server speaks and serves. Raises ``ModelError`` when it is not what was said."""
    if api is not None:
        return DIALECTS[api].served(server, model)
    for dialect in DIALECTS.values():
        try:
            return dialect.served(server, model)
        except (NoRoute, RefusedRequest):
            continue
    raise ModelError(
        f"nothing at {server.url} says what it serves: neither /info, which TEI has, nor "
        "/v1/models; correct the URL in model.name, or set model.api and model.served"
    )


def _chosen(url: str, ids: Sequence[str], model: str | None) -> str:
    listed = ", ".join(map(repr, ids))
    if model is not None and model not in ids:
        raise ModelError(f"{url} does not serve {model!r} (model.served) but {listed or 'nothing'}")
    if model is None and len(ids) != 1:
        raise ModelError(f"{url} serves {listed or 'no model'}; say which in model.served")
    return model or ids[0]


def _is_entry(entry: object) -> bool:
    return isinstance(entry, dict) and _is_name(entry.get("id"))


def _is_name(text: object) -> bool:
    """Whether a server's id of a model is a text that a table can keep."""
    if not isinstance(text, str) or not text or len(text) > LONGEST_NAME:
        return False
    return text.isprintable()  # halves of surrogate pairs are not


def _max_tokens(entry: Mapping[str, Any]) -> int | None:
    """The limit that vLLM and llama.cpp name."""
    meta = entry.get("meta")
    trained = meta.get("n_ctx_train") if isinstance(meta, dict) else None
    return _whole(entry.get("max_model_len")) or _whole(trained)


def _whole(value: object) -> int | None:
    return value if type(value) is int and 0 < value < 2**31 else None


def _values(row: Any) -> Answered:
    """A vector as base64 of little-endian float32, or as numbers; null is no number."""
    if isinstance(row, str):
        return np.frombuffer(base64.b64decode(row, validate=True), "<f4")
    if not _are(row, int, float, type(None)):
        raise TypeError("a vector is a list of numbers")
    with np.errstate(over="ignore"):  # what float32 has no room for is not finite
        return np.asarray(row, np.float64).astype(np.float32)


def _are(values: Iterable[object], *types: type) -> bool:
    """Whether all values are of these very types: ``true`` is no number, nor is ``"1"``."""
    return set(map(type, values)).issubset(types)


def _stacked(rows: Sequence[Answered]) -> Answered:
    return np.stack(rows) if rows else np.empty((0, 0), np.float32)


def _not_vectors(error: Exception) -> ValueError:
    return ValueError(f"{type(error).__name__}: {error}")
