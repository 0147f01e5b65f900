"""A web server for what sources over HTTP meet: validators, ranges, redirects and faults."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from urllib.parse import unquote

from tests.sources.loopback import loopback_server


@dataclass(slots=True)
class StubWeb:
    """The server's content, what it can do, and the faults it shows."""

    url: str
    files: dict[str, bytes] = field(default_factory=dict)
    dates: dict[str, int] = field(default_factory=dict)
    """Seconds since 1970 by path: what ``Last-Modified`` says."""
    redirects: dict[str, str] = field(default_factory=dict)
    statuses: list[int] = field(default_factory=list)
    """Answered to the next requests instead of the real answers."""
    has_etags: bool = True
    has_ranges: bool = True
    answers_head: bool = True
    ignores_ranges: bool = False
    """Whether it announces ranges and sends whole files."""
    password: str | None = None
    """Asked of the user ``me`` when there is one."""
    requests: list[tuple[str, str]] = field(default_factory=list)
    """Method and path of each."""
    n_bytes_sent: int = 0


@contextmanager
def stub_web() -> Iterator[StubWeb]:
    """Run the server on a free loopback port."""
    with loopback_server(_Handler) as server:
        web = StubWeb(f"http://127.0.0.1:{server.server_port}")
        server.web = web  # type: ignore[attr-defined]
        yield web


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_HEAD(self) -> None:
        self._serve(is_head=True)

    def do_GET(self) -> None:
        self._serve(is_head=False)

    def _serve(self, is_head: bool) -> None:
        web: StubWeb = self.server.web  # type: ignore[attr-defined]
        path = unquote(self.path.partition("?")[0].lstrip("/"))
        web.requests.append((self.command, path))
        login = base64.b64encode(f"me:{web.password}".encode()).decode()
        if web.statuses:
            self._answer(web.statuses.pop(0))
        elif is_head and not web.answers_head:
            self._answer(405)
        elif web.password is not None and self.headers.get("Authorization") != f"Basic {login}":
            self._answer(401)
        elif path in web.redirects:
            self._answer(302, {"Location": web.redirects[path]})
        elif path not in web.files:
            self._answer(404)
        else:
            self._send(web, path, is_head)

    def _send(self, web: StubWeb, path: str, is_head: bool) -> None:
        content, headers = web.files[path], {}
        if web.has_etags:
            headers["ETag"] = f'"{hashlib.md5(content).hexdigest()}"'
        if path in web.dates:
            headers["Last-Modified"] = formatdate(web.dates[path], usegmt=True)
        if web.has_ranges:
            headers["Accept-Ranges"] = "bytes"
        asked = self.headers.get("Range")
        if asked is None or not web.has_ranges or web.ignores_ranges:
            headers["Content-Length"] = str(len(content))
            self._answer(200, headers, b"" if is_head else content)
            return
        start, _, end = asked.removeprefix("bytes=").partition("-")
        body = content[int(start) : int(end) + 1]
        headers["Content-Range"] = f"bytes {start}-{int(start) + len(body) - 1}/{len(content)}"
        self._answer(206 if body else 416, headers, body)

    def _answer(
        self, status: int, headers: dict[str, str] | None = None, body: bytes = b""
    ) -> None:
        web: StubWeb = self.server.web  # type: ignore[attr-defined]
        web.n_bytes_sent += len(body)
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass
