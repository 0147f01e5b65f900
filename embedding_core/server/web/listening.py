"""Listen on an address and serve an application there, until it is stopped."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from embedding_core.errors import SetupError

LOOPBACK = "127.0.0.1"
BACKLOG = 512
"""Connections that the system keeps until they are accepted."""
SILENT_SECONDS = 10.0
"""A connection that has not sent the head of a request after this time is closed."""
FAREWELL_SECONDS = 5.0
"""Requests under way may take this long after the server was told to stop."""


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listening_socket(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes a free one. Raises ``SetupError`` when it cannot."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sends small answers at once (TCP_NODELAY) if the protocol is named, else 40 ms late.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
        return listener
    except (OSError, OverflowError) as error:
        listener.close()
        raise SetupError(
            f"cannot listen on {host} port {port}: {error}; choose another address or port"
        ) from error


def address_of(listener: socket.socket) -> str:
    """The URL of a socket that listens."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class ImpatientProtocol(H11Protocol):
    """HTTP that hangs up on a client which begins a request and does not go on with it."""

    silent_seconds = SILENT_SECONDS
    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the head of the first request."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Wait on while a head is incomplete."""
        super().data_received(data)
        is_answered = self.cycle is None or self.cycle.response_complete
        if is_answered and self.conn.trailing_data[0]:  # h11 has bytes that are no head yet
            self._wait()
        elif self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _wait(self) -> None:
        if self._patience is None:
            self._patience = self.loop.call_later(self.silent_seconds, self.transport.close)


class Server(uvicorn.Server):
    """A server that opens what it serves before it answers, and says when it is ready."""

    def __init__(
        self,
        app: FastAPI,
        opening: Callable[[], Awaitable[None]],
        ready: Callable[[], object],
        silent_seconds: float = SILENT_SECONDS,
    ) -> None:
        """What ``opening`` raises, ``run`` raises."""
        protocol = type("Protocol", (ImpatientProtocol,), {"silent_seconds": silent_seconds})
        config = uvicorn.Config(
            app,
            http=protocol,
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=int(FAREWELL_SECONDS),
        )
        super().__init__(config)
        self._opening = opening
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open, start the application, say that it is ready."""
        await self._opening()
        await super().startup(sockets)
        if self.started:
            self._ready()


@contextmanager
def in_background(
    app: FastAPI,
    opening: Callable[[], Awaitable[None]],
    host: str = LOOPBACK,
    silent_seconds: float = SILENT_SECONDS,
) -> Iterator[str]:
    """Serve on a free port, from a thread, while the context lasts; gives the URL.

    For tests, measurements and notebooks. Raises what ``opening`` raises.
    """
    listener = listening_socket(host, 0)
    began: Future[None] = Future()
    server = Server(app, opening, lambda: began.set_result(None), silent_seconds)
    with listener, ThreadPoolExecutor(1, thread_name_prefix="embedlake-server") as thread:
        running = thread.submit(server.run, [listener])
        wait([began, running], return_when=FIRST_COMPLETED)
        try:
            if not began.done():
                running.result()
            yield address_of(listener)
        finally:
            server.should_exit = True
