"""The fault: an S3 server that accepts every PUT, whatever its conditions say."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True, slots=True)
class ForgetfulStore:
    """Where it listens and what it was given."""

    url: str
    written: list[str] = field(default_factory=list)
    """Keys in the order of their PUTs."""


@contextmanager
def forgetful_store() -> Iterator[ForgetfulStore]:
    """Run the server on loopback for as long as the context lasts."""
    written: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            return

        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers.get("content-length") or 0))
            written.append(self.path)
            self._answer(200)

        def do_DELETE(self) -> None:
            self._answer(204)

        def do_GET(self) -> None:
            self._answer(404)

        def do_HEAD(self) -> None:
            self._answer(404)

        def _answer(self, status: int) -> None:
            self.send_response(status)
            self.send_header("ETag", '"0"')
            self.send_header("content-length", "0")
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield ForgetfulStore(f"http://127.0.0.1:{server.server_port}", written)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
