"""A proxy on loopback before an S3 server: it does to requests what it is told.

    python -m experiments.faults.s3.proxy PORT_OF_THE_SERVER

It says the port it listens on; then it reads a ``Trouble`` a line from stdin and answers each with
the ``Traffic`` until then. It ends with stdin. A request keeps its ``Host``, which its signature
covers.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import asdict
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from benchmarks.machine import ROOT
from experiments.faults.s3.trouble import Harm, Traffic, Trouble

LOOPBACK = "127.0.0.1"
LONGEST_SECONDS = 60.0
HOP_BY_HOP = frozenset({"connection", "transfer-encoding", "expect", "keep-alive"})
REFUSED = {
    Harm.REFUSE_500: (500, "InternalError"),
    Harm.DENY: (500, "InternalError"),
    Harm.REFUSE_503: (503, "SlowDown"),
}
LOSES_CONNECTION = frozenset(Harm) - {*REFUSED, Harm.DELAY, Harm.STRIP}
"""Harms after which the client's connection ends without a word more."""

Headers = dict[str, str]


class Proxy:
    """A proxy in another process, which ends with this one."""

    def __init__(self, server_port: int) -> None:
        environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "experiments.faults.s3.proxy", str(server_port)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, cwd=ROOT,
        )  # fmt: skip
        self.host = f"{LOOPBACK}:{int(self._line())}"

    def give(self, trouble: Trouble) -> Traffic:
        """Do this to requests from now on; what happened until now. Children may call it too."""
        assert self._process.stdin is not None
        os.write(self._process.stdin.fileno(), json.dumps(asdict(trouble)).encode() + b"\n")
        return Traffic(**json.loads(self._line()))

    def close(self) -> None:
        """End the proxy."""
        self._process.kill()
        self._process.communicate()

    def _line(self) -> bytes:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


class _Troubles:
    """Decides what happens to each request."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._outage_ends = 0.0
        self._chance = random.Random(0)
        self.trouble, self.traffic = Trouble(), Traffic(0, 0)

    def give(self, trouble: Trouble) -> Traffic:
        with self._lock:
            traffic = self.traffic
            self.trouble, self.traffic = trouble, Traffic(0, 0)
            self._chance, self._outage_ends = random.Random(trouble.seed), 0.0
        return traffic

    def of(self, request: str) -> Harm | None:
        """What happens to a request, which is counted."""
        trouble = self.trouble
        with self._lock:
            if time.monotonic() < self._outage_ends:
                return Harm.OUTAGE
            if not re.search(trouble.matches, request):
                return None
            n_matching = self.traffic.n_matching + 1
            is_drawn = trouble.number == 0 and self._chance.random() < trouble.share
            is_harmed = trouble.harm is not None and (is_drawn or n_matching == trouble.number)
            self.traffic = Traffic(n_matching, self.traffic.n_harmed + is_harmed)
            if is_harmed and trouble.harm in (Harm.OUTAGE, Harm.REPLY_AND_OUTAGE):
                self._outage_ends = time.monotonic() + trouble.seconds
            return trouble.harm if is_harmed else None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 20
    disable_nagle_algorithm = True
    server_port: int
    troubles: _Troubles

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def handle_expect_100(self) -> bool:
        """Ask for the body at once."""
        super().handle_expect_100()
        self.wfile.flush()
        return True

    def pass_on(self) -> None:
        """Pass a request on, and its answer back, or do to it what is told."""
        body = self._body()
        harm, trouble = self.troubles.of(f"{self.command} {self.path}"), self.troubles.trouble
        headers = _end_to_end(self.headers.items())
        if harm is Harm.DELAY:
            time.sleep(trouble.seconds)
        if harm is Harm.STRIP:
            headers = self._without(trouble.header, headers, body)
        # 1. What happens before the store has the request.
        if harm is Harm.KILL_BEFORE:
            os.kill(trouble.pid, signal.SIGKILL)
        elif harm in (Harm.REFUSE_500, Harm.REFUSE_503):
            self._refuse(*REFUSED[harm])
        elif harm is Harm.CUT and body:
            self._forward_half(headers, body)
        elif harm is not Harm.OUTAGE:
            # 2. What happens once the store has done it.
            status, answer_headers, answer = self._forward(headers, body)
            if harm is Harm.KILL_AFTER:
                os.kill(trouble.pid, signal.SIGKILL)
            elif harm is Harm.DENY:
                self._refuse(*REFUSED[harm])
            elif harm not in (Harm.LOSE_REPLY, Harm.REPLY_AND_OUTAGE):
                n_sent = len(answer) // 2 if harm is Harm.CUT else len(answer)
                self._answer(status, answer_headers, answer, n_sent)
        if harm in LOSES_CONNECTION:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = pass_on  # noqa: N815

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("transfer-encoding", ""):
            return self.rfile.read(int(self.headers.get("content-length") or 0))
        chunks = []
        while n_bytes := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(n_bytes))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _forward(self, headers: Headers, body: bytes) -> tuple[int, Headers, bytes]:
        connection = HTTPConnection(LOOPBACK, self.server_port, timeout=LONGEST_SECONDS)
        try:
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            return answer.status, _end_to_end(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def _forward_half(self, headers: Headers, body: bytes) -> None:
        connection = HTTPConnection(LOOPBACK, self.server_port, timeout=LONGEST_SECONDS)
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders(body[: len(body) // 2])
        connection.close()

    def _without(self, name: str, headers: Headers, body: bytes) -> Headers:
        """Headers without one of them, signed again: the signature covers every one."""
        from experiments.faults.s3.signing import signed  # other harms do without botocore

        left = {key: value for key, value in headers.items() if key.lower() != name.lower()}
        return signed(self.command, self.headers["host"], self.path, left, body)

    def _refuse(self, status: int, code: str) -> None:
        content = f"<Error><Code>{code}</Code></Error>".encode()
        self._answer(status, {}, content, len(content))

    def _answer(self, status: int, headers: Headers, content: bytes, n_sent: int) -> None:
        self.send_response_only(status)
        length = {"Content-Length": str(len(content))}  # what the server says of a HEAD comes first
        for name, value in (length | {key.title(): headers[key] for key in headers}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD" and status != 304:
            self.wfile.write(content[:n_sent])
        self.wfile.flush()


def _end_to_end(headers: Iterable[tuple[str, str]]) -> Headers:
    """Headers without those of a single connection."""
    return {name: value for name, value in headers if name.lower() not in HOP_BY_HOP}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64


def main() -> None:
    """Serve until stdin ends."""
    _Handler.server_port, _Handler.troubles = int(sys.argv[1]), _Troubles()
    server = _Server((LOOPBACK, 0), _Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    for line in sys.stdin:
        traffic = _Handler.troubles.give(Trouble.of(json.loads(line)))
        print(json.dumps(asdict(traffic)), flush=True)


if __name__ == "__main__":
    main()
