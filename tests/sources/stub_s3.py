"""A stub of S3 for what a real server will not do: keys with ``..`` and ``//``, and faults.

Serves list and ranged GET for one bucket, by the exact path it is asked for. The happy path is
tested against a real server (``tests/s3.py``).
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import parse_qs, quote, unquote
from xml.sax.saxutils import escape

from embedding_core.store.storage import StorageSpec

BUCKET = "stub"


@dataclass(slots=True)
class StubS3:
    """The stub's content and the faults it shows."""

    url: str
    objects: dict[str, bytes] = field(default_factory=dict)
    page_size: int = 1000
    is_endless: bool = False
    """Whether a listing begins again after its last page."""
    status: int | None = None
    """Answered to everything instead of the real answer."""
    cut_bodies: bool = False
    """Break the connection off in the middle of every object."""
    requests: list[str] = field(default_factory=list)

    @property
    def storage(self) -> StorageSpec:
        return StorageSpec(endpoint_url=self.url, region="us-east-1", anonymous=True)


@contextmanager
def stub_s3() -> Iterator[StubS3]:
    """Run the stub on a free loopback port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    stub = StubS3(f"http://127.0.0.1:{server.server_port}")
    server.stub = stub  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version: ClassVar[str] = "HTTP/1.1"

    def do_GET(self) -> None:
        stub: StubS3 = self.server.stub  # type: ignore[attr-defined]
        path, _, query = self.path.partition("?")
        stub.requests.append(path)
        if stub.status is not None:
            self._error(stub.status, {403: "AccessDenied", 503: "SlowDown"}.get(stub.status, "No"))
        elif path.strip("/") == BUCKET:
            self._list(stub, parse_qs(query))
        else:
            self._get(stub, unquote(path.removeprefix(f"/{BUCKET}/")))

    def _list(self, stub: StubS3, query: dict[str, list[str]]) -> None:
        prefix = query.get("prefix", [""])[0]
        after = query.get("continuation-token", [""])[0]
        size = int(query.get("max-keys", [str(stub.page_size)])[0])
        keys = sorted(key for key in stub.objects if key.startswith(prefix) and key > after)
        entries = "".join(
            f"<Contents><Key>{quote(key)}</Key><Size>{len(stub.objects[key])}</Size>"
            f"<ETag>&quot;{_etag(stub.objects[key])}&quot;</ETag></Contents>"
            for key in keys[:size]
        )
        more = len(keys) > size or stub.is_endless
        last = escape(keys[size - 1]) if len(keys) > size else ""
        self._answer(
            200,
            f"<ListBucketResult><EncodingType>url</EncodingType>{entries}"
            f"<IsTruncated>{str(more).lower()}</IsTruncated>"
            f"<NextContinuationToken>{last}</NextContinuationToken>"
            "</ListBucketResult>".encode(),
        )

    def _get(self, stub: StubS3, key: str) -> None:
        if key not in stub.objects:
            self._error(404, "NoSuchKey")
            return
        data = stub.objects[key]
        if self.headers.get("If-Match", "").strip('"') != _etag(data):
            self._error(412, "PreconditionFailed")
            return
        asked = self.headers.get("Range", f"bytes=0-{len(data)}")
        start, _, end = asked.removeprefix("bytes=").partition("-")
        body = data[int(start) : int(end) + 1]
        if stub.cut_bodies:
            self.send_response(206)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
        else:
            self._answer(206, body)

    def _error(self, status: int, code: str) -> None:
        self._answer(status, f"<Error><Code>{code}</Code><Message>m</Message></Error>".encode())

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def _etag(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()
