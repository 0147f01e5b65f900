"""What every request passes: who may ask, how large and how slow a request may be, what a browser
may do with an answer."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable, Collection, MutableMapping
from dataclasses import dataclass
from typing import Any

from pydantic_core import to_json
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from embedding_core.plurals import counted
from embedding_core.server.answering.limits import Limits
from embedding_core.server.answering.messages import Problem

POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)
"""For the browser: the page takes everything from this server and sends nothing anywhere else."""
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}
OPEN_PATHS = ("/", "/healthz")
OPEN_FOLDER = "/assets/"
"""What needs no token: the page without any data, and whether the server lives."""
READING = frozenset({"GET", "HEAD", "OPTIONS"})

Count = Callable[[str, int], object]
"""Told the route and the status of every answer."""


@dataclass(frozen=True, slots=True)
class Access:
    """Who may ask."""

    token: str | None = None
    """What a client sends as ``Authorization: Bearer``; None: nobody needs one."""
    hosts: Collection[str] | None = None
    """Names by which the server may be called; None: any. On loopback it keeps out pages of the
    web whose name was pointed at this machine."""

    def knows(self, headers: Headers) -> bool:
        """Whether a request has the token. Takes as long for a wrong token as for the right one."""
        if self.token is None:
            return True
        sent = headers.get("authorization", "").encode("latin-1", "replace")
        return hmac.compare_digest(sent, f"Bearer {self.token}".encode())


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request goes no further."""

    status: int
    problem: Problem


class Guard:
    """The outermost layer of the application."""

    def __init__(self, app: ASGIApp, access: Access, limits: Limits, count: Count) -> None:
        self._app = app
        self._access = access
        self._limits = limits
        self._count = count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer why not."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(scope, send, self._count)
        refusal = self._refusal(scope["method"], scope["path"], Headers(scope=scope))
        body = b""
        if refusal is None and scope["method"] not in READING:
            body, refusal = await self._body(receive, Headers(scope=scope))
        if refusal is not None:
            await answer.refuse(refusal)
            return
        await self._app(scope, _replayed(body, receive), answer.send)

    def _refusal(self, method: str, path: str, headers: Headers) -> Refusal | None:
        """What the head of a request is refused for."""
        host, origin = headers.get("host", ""), headers.get("origin")
        if self._access.hosts is not None and _name(host) not in self._access.hosts:
            return _refused(421, "host", f"this server is not called {host[:100]!r}")
        if origin is not None and method not in READING and origin.partition("://")[2] != host:
            return _refused(403, "origin", f"a page of {origin[:100]!r} may not ask this server")
        is_open = path in OPEN_PATHS or path.startswith(OPEN_FOLDER)
        if not is_open and not self._access.knows(headers):
            return _refused(
                401, "token", "the token is missing or wrong; send it as Authorization: Bearer …"
            )
        return None

    async def _body(self, receive: Receive, headers: Headers) -> tuple[bytes, Refusal | None]:
        """All of a request's body, or why it is not taken."""
        most = self._limits.body_bytes
        declared = headers.get("content-length", "0")
        if declared.isdecimal() and int(declared) > most:
            return b"", _too_long(int(declared), most)
        body = bytearray()
        try:
            async with asyncio.timeout(self._limits.request_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return b"", _refused(400, "left", "the client left within its request")
                    body += message.get("body", b"")
                    if len(body) > most:
                        return b"", _too_long(len(body), most)
                    if not message.get("more_body", False):
                        return bytes(body), None
        except TimeoutError:
            seconds = self._limits.request_seconds
            return b"", _refused(408, "slow", f"the request was not complete after {seconds:g} s")


class _Answer:
    """Sends an answer with the headers that every answer has, and counts it."""

    def __init__(self, scope: Scope, send: Send, count: Count) -> None:
        self._scope = scope
        self._send = send
        self._count = count

    async def send(self, message: Message) -> None:
        """Pass on a message of the application's answer."""
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
            self._count(_route(self._scope), message["status"])
        await self._send(message)

    async def refuse(self, refusal: Refusal) -> None:
        """Answer why the request goes no further, and hang up: its body may still be coming."""
        content = to_json(refusal.problem)
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(content)).encode()),
            (b"connection", b"close"),
        ]
        if refusal.status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        start = {"type": "http.response.start", "status": refusal.status, "headers": headers}
        await self.send(start)
        await self.send({"type": "http.response.body", "body": content})


def _replayed(body: bytes, receive: Receive) -> Receive:
    """``receive`` with the body that was read already."""
    pending: list[MutableMapping[str, Any]] = [
        {"type": "http.request", "body": body, "more_body": False}
    ]

    async def replay() -> MutableMapping[str, Any]:
        return pending.pop() if pending else await receive()

    return replay


def _route(scope: Scope) -> str:
    """The path as the application declares it: a bounded number of names."""
    return str(getattr(scope.get("route"), "path", "")) or "none"


def _name(host: str) -> str:
    """A host without its port, in lower case."""
    if host.startswith("["):
        return host.partition("]")[0].removeprefix("[").lower()
    return host.partition(":")[0].lower()


def _refused(status: int, kind: str, error: str) -> Refusal:
    return Refusal(status, Problem(error, kind))


def _too_long(n_bytes: int, most: int) -> Refusal:
    return _refused(
        413, "too_long", f"the request has {counted(n_bytes, 'byte')}; send at most {most:,}"
    )
