"""Requests over HTTP: with a time limit, tried again where that may help, and never silent.

Knows no store: what a status means beyond "try again" is for who asks.
"""

from __future__ import annotations

import atexit
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from netrc import NetrcParseError
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from embedding_core.errors import RejectedInput, SetupError, Transient, words
from embedding_core.plurals import counted
from embedding_core.reasons import UNREADABLE
from embedding_core.store import retry
from embedding_core.store.faults import Fault, fault_of_status

if TYPE_CHECKING:
    import httpx2

TIMEOUT_SECONDS = 9.0
"""Longest wait for a connection, and for the next bytes of an answer."""
MOST_BYTES = 256 * 1024 * 1024
"""Largest answer that is taken into memory."""
PIECE_BYTES = 1024 * 1024
"""Bytes in memory at a time while an answer is copied."""


_SECONDS = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class Request:
    """What to ask for."""

    url: str
    method: str = "GET"
    headers: Mapping[str, str] | None = None
    json: Any = None
    """Sent as the body; None sends none."""
    follows: bool = False
    """Whether to follow redirects, to other hosts too; these get no ``Authorization``."""
    uses_netrc: bool = False
    """Whether to send what ``~/.netrc`` has for the host."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered; never one of the statuses that may pass."""

    status: int
    headers: Mapping[str, str]
    """Looked up without regard to case."""
    body: bytes
    next_url: str | None = None
    """The next page, as the ``Link`` header says."""

    @property
    def is_good(self) -> bool:
        """Whether the status says that this is what was asked for."""
        return 200 <= self.status < 300


def ask(request: Request, most_bytes: int = MOST_BYTES) -> Answer:
    """The answer, of at most ``most_bytes``; with 0, its body is not read.

    Raises ``Transient`` when ``STORE_ATTEMPTS`` brought no answer but 408, 429 and 5xx;
    ``Retry-After`` is honoured. Raises ``RejectedInput`` for a URL that cannot be asked and for an
    answer that is too long.
    """

    def step(_attempt: int) -> Answer:
        with _answered(request) as response:
            is_read = response.is_success and most_bytes > 0
            body = b"".join(_pieces(response, most_bytes)) if is_read else b""
            next_url = response.links.get("next", {}).get("url")
            return Answer(response.status_code, response.headers, body, next_url)

    return retry.tried_again(f"reach {shown(request.url)}", step)


def download(request: Request, target: BinaryIO, most_bytes: int) -> Answer:
    """Copy the body of a good answer into an open file; see ``ask``."""

    def step(_attempt: int) -> Answer:
        target.seek(0)
        target.truncate()
        with _answered(request) as response:
            if response.is_success:
                for piece in _pieces(response, most_bytes):
                    target.write(piece)
            return Answer(response.status_code, response.headers, b"")

    return retry.tried_again(f"read {shown(request.url)}", step)


def shown(url: str) -> str:
    """A URL as messages show it: without what stands after ``?``, which may sign it."""
    return url.partition("?")[0]


@contextmanager
def _answered(request: Request) -> Iterator[httpx2.Response]:
    import httpx2  # 0.1 s, which only sources over HTTP need

    try:
        with _client().stream(
            request.method,
            request.url,
            headers={"Accept-Encoding": "identity", **(request.headers or {})},
            json=request.json,
            follow_redirects=request.follows,
            auth=_netrc() if request.uses_netrc else None,
        ) as response:
            _check_status(response, request)
            yield response
    except (httpx2.InvalidURL, httpx2.UnsupportedProtocol, httpx2.TooManyRedirects) as error:
        raise RejectedInput(UNREADABLE, f"the URL cannot be asked: {words(error)}") from error
    except httpx2.HTTPError as error:  # no answer, or it broke off
        raise Transient(f"{_host(request)} gave no answer: {words(error)}") from error


def _check_status(response: httpx2.Response, request: Request) -> None:
    status = response.status_code
    if status < 400 or fault_of_status(status) is not Fault.PASSING:
        return
    raise Transient(
        f"{_host(request)} answers HTTP {status}", pause_seconds=_pause_seconds(response.headers)
    )


def _pause_seconds(headers: Mapping[str, str]) -> float:
    """The pause that ``Retry-After`` asks for; a date, which few servers send, is no number."""
    asked = headers.get("Retry-After", "").strip()
    return float(asked) if _SECONDS.fullmatch(asked) else 0.0


def _pieces(response: httpx2.Response, most_bytes: int) -> Iterator[bytes]:
    n_bytes = 0
    for piece in response.iter_raw(PIECE_BYTES):
        n_bytes += len(piece)
        if n_bytes > most_bytes:
            raise RejectedInput(
                UNREADABLE,
                f"the server sends more than the {counted(most_bytes, 'byte')} that there may be: "
                "the file changed, or the server does not keep to the range that it is asked for",
            )
        yield piece


def _host(request: Request) -> str:
    return request.url.partition("://")[2].partition("/")[0]


def _netrc() -> httpx2.NetRCAuth | None:
    path = Path("~/.netrc").expanduser()
    return _netrc_of(path, path.stat().st_mtime_ns) if path.is_file() else None


@lru_cache(maxsize=1)
def _netrc_of(path: Path, _written_at: int) -> httpx2.NetRCAuth:
    import httpx2  # see above

    try:
        return httpx2.NetRCAuth(str(path))
    except (OSError, NetrcParseError):  # its message may repeat a password
        raise SetupError(
            f"{path} cannot be read; correct its syntax, and let nobody but its owner read it"
        ) from None


@lru_cache(maxsize=1)
def _client() -> httpx2.Client:
    import httpx2  # see above

    client = httpx2.Client(timeout=TIMEOUT_SECONDS, max_redirects=5)
    atexit.register(client.close)
    return client
