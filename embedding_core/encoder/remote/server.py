"""One server: a pool of connections that are kept alive, and what its answers mean.

Every fault has a class: ``Overloaded`` asks for fewer requests, ``Unanswered`` for another try,
``ServerFailed`` and ``RefusedRequest`` for other texts, ``ModelError`` for a person. Redirects are
never followed: a token goes to the host that the recipe names.
"""

from __future__ import annotations

import json
import re
import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from embedding_core.encoder.remote.credentials import token_for
from embedding_core.errors import ModelError, RejectedInput, Transient, words
from embedding_core.reasons import REFUSED_BY_SERVER
from embedding_core.recipe.endpoints import TOKEN

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 120.0
"""Longest wait for an answer: a large batch on a slow machine takes a minute."""
MOST_ANSWER_BYTES = 2**28
"""Largest answer: ten times what 256 vectors of 8,192 numbers take as text."""
SHOWN_CHARACTERS = 300
"""Most that is shown of what a server says about a fault."""

OVERLOADED = frozenset({408, 425, 429, 502, 503, 504})
NO_ROUTE = frozenset({404, 405})
_SECONDS = re.compile(r"[0-9]+(\.[0-9]*)?")


class Overloaded(Transient):
    """The server has too much to do, or took too long."""

    code = "overloaded"


class Hung(Overloaded):
    """The server took longer than it may."""


class Unanswered(Transient):
    """The server did not answer, or its answer is no JSON, or half of one."""

    code = "unanswered"


class ServerFailed(Transient):
    """The server failed over a request (HTTP 500); some say so of a text that is too long."""

    code = "server_failed"


class RefusedRequest(RejectedInput):
    """The server refuses a request for what is in it (HTTP 400, 413, 422)."""

    def __init__(self, detail: str) -> None:
        super().__init__(REFUSED_BY_SERVER, detail)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.detail,)


class NoRoute(ModelError):
    """The server has nothing at the path that it was asked for."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a server answered, whole."""

    status: int
    headers: Mapping[str, str]
    content: bytes


class Server:
    """A server at ``url``, the part before ``/v1/…``, ``/embed`` and ``/info``."""

    def __init__(
        self,
        url: str,
        answer_seconds: float = ANSWER_SECONDS,
        look_seconds: float = ANSWER_SECONDS,
        connect_seconds: float = CONNECT_SECONDS,
    ) -> None:
        import httpx2  # 0.1 s, which only endpoints need

        self.url = url
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
        self._client = httpx2.Client(limits=limits, follow_redirects=False)
        self._close = weakref.finalize(self, self._client.close)
        self._seconds = {"GET": look_seconds, "POST": answer_seconds}
        self._connect_seconds = connect_seconds

    def close(self) -> None:
        """Close the connections; those of a server that nobody refers to are closed anyway."""
        self._close()

    def get(self, path: str) -> Any:
        """What the server says at ``path``; errors as ``post``."""
        return self._ask("GET", path, None)

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """The JSON that the server answers. Raises this module's errors and ``ModelError``."""
        return self._ask("POST", path, body)

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None) -> Any:
        import httpx2  # see above

        token = token_for(self.url)
        try:
            answer = self._answer(method, path, body, token)
        except (httpx2.ReadTimeout, httpx2.WriteTimeout) as error:
            raise self._hung(method, path) from error
        except httpx2.InvalidURL as error:
            raise ModelError(f"the URL {self.url!r} cannot be asked: {words(error)}") from error
        except httpx2.HTTPError as error:
            raise Unanswered(
                f"{self.url} gave no answer to {method} {path} ({words(error)}); look whether it "
                "runs, then run the same command again"
            ) from error
        return self._checked(answer, f"{method} {path}", token)

    def _answer(
        self, method: str, path: str, body: Mapping[str, Any] | None, token: str | None
    ) -> _Answer:
        """Ask, and read the answer to its end: one that trickles in has no longer than another."""
        import httpx2  # see above

        seconds = self._seconds[method]
        until = time.monotonic() + seconds
        timeout = httpx2.Timeout(seconds, connect=min(self._connect_seconds, seconds))
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        content = bytearray()
        with self._client.stream(
            method, self.url + path, json=body, headers=headers, timeout=timeout
        ) as response:
            for part in response.iter_bytes():
                content += part
                if time.monotonic() > until:
                    raise self._hung(method, path)
                if len(content) > MOST_ANSWER_BYTES:
                    raise Unanswered(
                        f"{self.url} answers {method} {path} with more than {MOST_ANSWER_BYTES:,} "
                        "bytes; look whether the URL is that of the server"
                    )
        return _Answer(response.status_code, response.headers, bytes(content))

    def _hung(self, method: str, path: str) -> Hung:
        slow = ", or set batch_tokens lower for a slow one" if method == "POST" else ""
        return Hung(
            f"{self.url} gave no answer to {method} {path} within {self._seconds[method]:g} s; "
            f"look whether it hangs{slow}, then run the same command again"
        )

    def _checked(self, answer: _Answer, request: str, token: str | None) -> Any:
        status, answered = answer.status, f"{self.url} answers {request} with HTTP "
        if 300 <= status < 400:
            raise ModelError(f"{answered}{status}: {_redirect(answer)}")
        if status in (401, 403):
            raise ModelError(f"{answered}{status}: {_why_denied(token)}")
        if status in NO_ROUTE:
            raise NoRoute(
                f"{answered}{status}; correct the URL in model.name, model.api or model.served"
            )
        if status in OVERLOADED:
            pause = _pause_seconds(answer.headers)
            why = f"{answered}{status}: it has too much to do, or is starting"
            raise Overloaded(f"{why}; run the same command again later", pause_seconds=pause)
        if status >= 500:
            raise ServerFailed(f"{answered}{status}: {_said(answer, token)}; look at its log")
        if status >= 400:
            raise RefusedRequest(f"{answered}{status}: {_said(answer, token)}")
        try:
            return json.loads(answer.content)
        except (ValueError, RecursionError) as error:
            kind = answer.headers.get("Content-Type", "something")
            raise Unanswered(
                f"{self.url} answers {request} with {kind} that is no JSON, or half of it; look "
                "whether the URL is that of the server, and what stands before it"
            ) from error


def _redirect(answer: _Answer) -> str:
    try:
        host = urlsplit(answer.headers.get("Location", "")).netloc.rpartition("@")[2]
    except ValueError:  # no URL
        host = ""
    where = f" to {host}" if host else ""
    return (
        f"it redirects{where}, and a token goes nowhere but to the host that the recipe names; put "
        "the URL of the server itself into model.name"
    )


def _why_denied(token: str | None) -> str:
    if token is None:
        return f"it asks for a token; put it into the environment variable {TOKEN}"
    return (
        f"it does not accept the token of {TOKEN}; it has expired or is another server's: renew "
        "it, and run the same command again to go on"
    )


def _said(answer: _Answer, token: str | None) -> str:
    """What the server says of a fault, without the token that it may repeat."""
    text = " ".join(answer.content.decode("utf-8", "replace").split())
    if token:
        text = text.replace(token, "…")
    return repr(text[:SHOWN_CHARACTERS])


def _pause_seconds(headers: Mapping[str, str]) -> float:
    """The pause that ``Retry-After`` asks for: seconds, or a date by the server's own clock."""
    pause = headers.get("Retry-After", "").strip()
    if _SECONDS.fullmatch(pause):
        return float(pause)
    until, now = _date(pause), _date(headers.get("Date", "")) or datetime.now(UTC)
    return 0.0 if until is None else max(0.0, (until - now).total_seconds())


def _date(text: str) -> datetime | None:
    """A date of HTTP, which is in UTC; None for another text."""
    try:
        return parsedate_to_datetime(text).replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None
