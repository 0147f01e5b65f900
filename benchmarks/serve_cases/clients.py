"""Clients that cost little themselves: a connection each, one question after the other."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Asked:
    """A question and its answer."""

    query: str
    status: int
    seconds: float
    """From the first byte sent to the last byte read."""
    answer: dict[str, Any]


@dataclass(slots=True)
class Load:
    """What clients saw."""

    asked: list[Asked] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    """Connections that broke."""
    seconds: float = 0.0


class Client:
    """A connection that stays open."""

    def __init__(self, url: str, table: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 0
        self._path = f"/api/tables/{table}/search"

    async def __aenter__(self) -> Client:
        self._reader, self._writer = await asyncio.open_connection(self._host, self._port)
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._writer.close()

    async def ask(self, query: str, **message: Any) -> Asked:
        """Send a question and read its answer."""
        body = json.dumps({"query": query, **message}).encode()
        head = (
            f"POST {self._path} HTTP/1.1\r\nHost: {self._host}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        started = time.perf_counter()
        self._writer.write(head.encode() + body)
        answered = await self._reader.readuntil(b"\r\n\r\n")
        status = int(answered[9:12])
        length = int(answered.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        content = await self._reader.readexactly(length)
        return Asked(query, status, time.perf_counter() - started, json.loads(content))


async def load(
    url: str,
    table: str,
    queries: Sequence[str],
    n_clients: int,
    goes_on: Callable[[], bool],
) -> Load:
    """Let clients ask, each the queries in turn from another beginning, while ``goes_on``."""
    seen = Load()

    async def work(number: int) -> None:
        try:
            async with Client(url, table) as client:
                turn = number * len(queries) // n_clients
                while goes_on():
                    seen.asked.append(await client.ask(queries[turn % len(queries)]))
                    turn += 1
        except (OSError, asyncio.IncompleteReadError, ValueError) as error:
            seen.errors.append(f"{type(error).__name__}: {error}")

    started = time.perf_counter()
    await asyncio.gather(*map(work, range(n_clients)))
    seen.seconds = time.perf_counter() - started
    return seen
