"""The engine of endpoints: a model behind one server or several, described by asking them.

Describing asks every server what it serves and for the vectors of a few fixed texts. So each task
notices a server that serves something else before it writes anything.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np

from embedding_core.encoder.engines import ModelInfo
from embedding_core.encoder.parity import PARITY_TEXTS
from embedding_core.encoder.remote.counting import CAUTIOUS, Counter, counter_of, fitted
from embedding_core.encoder.remote.dialects import Served, learn
from embedding_core.encoder.remote.endpoint_info import EndpointInfo
from embedding_core.encoder.remote.fingerprint import LEAST_COSINE, POOLING, Fingerprint
from embedding_core.encoder.remote.patience import Patience, patience
from embedding_core.encoder.remote.server import RefusedRequest, Server
from embedding_core.encoder.remote.traffic import Target, Traffic
from embedding_core.errors import ModelError, Transient
from embedding_core.plurals import counted
from embedding_core.protocols import TextEncoder, Vectors
from embedding_core.recipe import ModelSpec, Resources
from embedding_core.recipe.paths import kind_of
from embedding_core.records import Space
from embedding_core.store.retry import never_silent

log = logging.getLogger(__name__)

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")

SUFFIXES = ("/v1/embeddings", "/v1", "/embed")
"""Ends of a URL that are no part of the server's."""


class EndpointEngine:
    """The engine of ``http://`` and ``https://`` names."""

    options = frozenset(
        {
            "allow_unverified",
            "api",
            "dim",
            "document_prompt",
            "dtype",
            "endpoints",
            "max_tokens",
            "query_prompt",
            "revision",
            "served",
            "storage",
            "tokenizer",
        }
    )
    """``allow_unverified`` changes nothing: what a server computes is not tested here anyway."""

    def claims(self, name: str) -> bool:
        """Whether the name is a URL."""
        return kind_of(name) == "endpoint"

    def describe(self, model: ModelSpec) -> EndpointInfo:
        """See ``Engine.describe``. Raises ``ModelError`` when a server is not what was recorded or
        not what the others are, ``Transient`` when none answers."""
        if model.dtype not in ("auto", "fp32"):
            raise ModelError(
                f"dtype {model.dtype} means nothing for {model.name}: the server chooses its "
                "arithmetic; use auto, which stores vectors in half precision, or fp32"
            )
        bearing = patience()
        doing = f"hear from {model.name} (look whether it hangs)"
        with _servers(model, bearing) as servers, never_silent(doing, bearing.silent_seconds):
            learnt = _answers(
                servers, lambda s: bearing.tried_again(partial(learn, s, model.api, model.served))
            )
            _refuse_other_ids(learnt)
            first = learnt[0][1]
            counter = counter_of(model, first.model)
            max_tokens = _max_tokens(model, first, counter)
            texts, _ = fitted(counter.tokenizer_for(""), PARITY_TEXTS, max_tokens)
            probed = _answers(learnt, lambda pair: _probes(*pair, texts, bearing))
        probes = [probe for _, probe in probed]
        prints = [Fingerprint.of(probe.vectors) for probe in probes]
        urls = tuple(server.url for (server, _), _ in probed)
        _refuse_other_prints(urls, first.model, prints)
        fingerprint = _recorded(model, prints[0], first)
        n_values = probes[0].vectors.shape[1]
        in_base64 = all(probe.in_base64 for probe in probes)
        return EndpointInfo(
            space=_space(model, first, counter, max_tokens, fingerprint, n_values),
            target=Target(first.api, first.model, in_base64, n_values),
            most_texts=min(probe.most_texts for probe in probes),
            urls=urls,
            counter=counter,
            probe_text=texts[0],
            probe=probes[0].vectors[0],
        )

    def load(self, info: ModelInfo, resources: Resources) -> TextEncoder:
        """See ``Engine.load``. Nothing is loaded: the encoder is a client."""
        from embedding_core.encoder.remote.encoder import EndpointEncoder

        assert isinstance(info, EndpointInfo)
        servers = [Server(url) for url in info.urls]
        return EndpointEncoder(info, servers, resources.at_once, resources.batch_tokens)


ENDPOINT = EndpointEngine()


def base_url(url: str) -> str:
    """The part of an endpoint's URL that is before the paths of its API."""
    url = url.rstrip("/")
    for suffix in SUFFIXES:
        url = url.removesuffix(suffix)
    return url.rstrip("/")


@contextmanager
def _servers(model: ModelSpec, bearing: Patience) -> Iterator[list[Server]]:
    """Connections to every server that the section names, each once."""
    urls = dict.fromkeys(map(base_url, (model.name, *model.endpoints)))
    with ExitStack() as stack:
        servers = [bearing.server(url) for url in urls]
        for server in servers:
            stack.callback(server.close)
        yield servers


def _answers(asked: Sequence[Asked], ask: Callable[[Asked], Answer]) -> list[tuple[Asked, Answer]]:
    """What each of several answers; those that may answer later are left out, and said."""
    answers: list[tuple[Asked, Answer]] = []
    silent: list[Transient] = []
    for each in asked:
        try:
            answers.append((each, ask(each)))
        except Transient as error:
            silent.append(error)
    if not answers:
        raise silent[0]
    for fault in silent:
        log.warning("%s; the others do its work", fault)
    return answers


@dataclass(frozen=True, slots=True)
class _Probes:
    """The vectors of the parity texts."""

    vectors: Vectors
    """(n_texts, n_values) unit norm."""
    in_base64: bool
    """Whether the server takes a request for base64."""
    most_texts: int
    """Texts of a request, as far as the server said or showed."""


_fewer_texts: dict[str, int] = {}
"""Texts of a request by server, where it refused more in this process: what a run has learnt, none
of its tasks learns again."""


def _probes(server: Server, served: Served, texts: Sequence[str], bearing: Patience) -> _Probes:
    """Ask for the parity texts, without a prompt. When the server refuses them: as numbers, then
    half as many at once, down to a text per request."""
    most_texts = min(served.most_texts, _fewer_texts.get(server.url, served.most_texts))
    n_texts = min(most_texts, len(texts))
    while n_texts:
        for in_base64 in (True, False):
            target = Target(served.api, served.model, in_base64, n_values=None)
            try:
                vectors = _asked_for(server, target, texts, n_texts, bearing)
            except RefusedRequest as error:
                refused = error
            else:
                if most_texts < served.most_texts:
                    _fewer_texts[server.url] = most_texts
                return _Probes(vectors, in_base64, most_texts)
        most_texts = n_texts = n_texts // 2
    raise ModelError(
        f"{refused.detail}. It refuses texts that every model takes: correct model.api, "
        "model.served or model.max_tokens"
    ) from refused


def _asked_for(
    server: Server, target: Target, texts: Sequence[str], n_texts: int, bearing: Patience
) -> Vectors:
    """Unit vectors of texts, ``n_texts`` in a request."""
    traffic = Traffic([server], 1, bearing)
    with traffic.leased() as lease:
        answers = [
            traffic.vectors(target, texts[start : start + n_texts], 0, lease)
            for start in range(0, len(texts), n_texts)
        ]
    if len({answer.shape[1] for answer in answers}) > 1:
        raise ModelError(f"{server.url} gives vectors of several lengths; look at its log")
    vectors = np.concatenate(answers)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)  # (n_texts, 1)
    if not np.isfinite(norms).all() or not norms.all():
        problem = "zeros" if np.isfinite(norms).all() else "no finite vectors"
        raise ModelError(
            f"{server.url} gives {problem} for texts that every model has a vector of; look at its "
            "log, and start it with a wider dtype (bf16 or fp32) if it computes in fp16"
        )
    unit: Vectors = vectors / norms
    return unit


def _refuse_other_ids(learnt: Sequence[tuple[Server, Served]]) -> None:
    """Raise ``ModelError`` unless all servers have a model of the same id."""
    first, served = learnt[0]
    for server, other in learnt[1:]:
        if (other.api, other.model) != (served.api, served.model):
            both = f"{other.model!r} ({other.api}) and {served.model!r} ({served.api})"
            raise _different(server.url, first.url, both)


def _refuse_other_prints(urls: Sequence[str], model: str, prints: Sequence[Fingerprint]) -> None:
    """Raise ``ModelError`` unless all servers give the vectors of the first."""
    for url, fingerprint in zip(urls[1:], prints[1:], strict=True):
        if not fingerprint.is_near(prints[0]):
            problem = (
                f"{model!r} both, but other vectors for the same texts: mean cosine "
                f"{fingerprint.cosine(prints[0]):.3f}, at least {LEAST_COSINE:.3f} is needed"
            )
            raise _different(url, urls[0], problem)


def _different(url: str, first: str, problem: str) -> ModelError:
    return ModelError(
        f"{url} and {first} are different models: {problem}. Start both with the same one, or take "
        "one out of model.endpoints"
    )


def _recorded(model: ModelSpec, fingerprint: Fingerprint, served: Served) -> Fingerprint:
    """The fingerprint that the section has from a table, if the server's is near to it."""
    if model.revision is None:
        return fingerprint
    recorded = Fingerprint.read(model.revision)
    if recorded is None:
        raise ModelError(
            f"revision {model.revision!r} means nothing for {model.name}: there it is the "
            "fingerprint of 64 hex digits that a table records; remove it"
        )
    if not recorded.is_near(fingerprint):
        raise ModelError(
            f"{model.name} gives other vectors for {served.model!r} than those that were recorded "
            f"of it: mean cosine {recorded.cosine(fingerprint):.3f} for {len(PARITY_TEXTS)} fixed "
            f"texts, at least {LEAST_COSINE:.3f} is needed. Its model, its pooling or its version "
            "changed: start it as it was, or embed the table again with what it serves now",
            action="reembed",
        )
    return recorded


def _max_tokens(model: ModelSpec, served: Served, counter: Counter) -> int:
    limit = served.max_tokens
    if model.max_tokens is not None:
        if limit is not None and model.max_tokens > limit:
            raise ModelError(
                f"max_tokens {model.max_tokens} is above the {counted(limit, 'token')} that "
                f"{model.name} takes; use at most {limit}"
            )
        return model.max_tokens
    if limit is not None and model.tokenizer == CAUTIOUS:
        return limit
    return min(counter.max_tokens, limit or counter.max_tokens)


def _space(
    model: ModelSpec,
    served: Served,
    counter: Counter,
    max_tokens: int,
    fingerprint: Fingerprint,
    n_values: int,
) -> Space:
    if model.dim is not None and model.dim > n_values:
        raise ModelError(
            f"dim {model.dim} is larger than the {counted(n_values, 'value')} that {model.name} "
            f"gives; use at most {n_values}"
        )
    query_prompt, document_prompt = counter.prompts
    if model.query_prompt is not None:
        query_prompt = model.query_prompt
    if model.document_prompt is not None:
        document_prompt = model.document_prompt
    n_special = counter.tokenizer_for(document_prompt).n_special
    if max_tokens <= n_special:
        raise ModelError(
            f"max_tokens {max_tokens} leaves no room beside the "
            f"{counted(n_special, 'special token')} and "
            f"those of the prompt of {model.name}; use at least {n_special + 1}"
        )
    model_digest = hashlib.sha256(f"endpoint {served.model}".encode()).hexdigest()
    return Space(
        model=f"{served.model} at {base_url(model.name)}",
        revision=fingerprint.digits,
        identity=tuple(sorted((model_digest, fingerprint.digits))),
        tokenizer=counter.digest,
        pooling=POOLING,
        query_prompt=query_prompt,
        document_prompt=document_prompt,
        max_tokens=max_tokens,
        dim=model.dim or n_values,
        dtype_class="full" if model.dtype == "fp32" else "half",
    )
