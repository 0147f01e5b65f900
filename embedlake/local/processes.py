"""Starts and stops the servers of the local stack, each in a new session.

A server is recognised by its process id and start time: an id alone may be another process later.
"""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import SystemRandom
from typing import BinaryIO

import psutil

from embedding_core.errors import SetupError
from embedlake.local import guard

LOOPBACK = "127.0.0.1"
STOP_SECONDS = 8.0
"""A server that has not stopped by then is killed: SeaweedFS does not end on SIGTERM in time."""
POLL_SECONDS = 0.1
DRAWN_PORTS = range(20_000, 32_000)
"""Neither the system nor Ray gives these to anybody by itself: a port that is free stays free until
its server listens, which takes seconds."""

_children: list[subprocess.Popen[bytes]] = []
"""Servers this process started. They may outlive it: a handle that is dropped would complain."""


@dataclass(frozen=True, slots=True)
class Server:
    """A process that embedlake started."""

    name: str
    pid: int
    started_at: float
    """Creation time, seconds since the epoch, as the operating system tells it."""
    url: str | None
    """Where it answers; None for one that does not listen."""
    log: str
    """Path of its output."""


def free_ports(n_ports: int) -> list[int]:
    """Different TCP ports of the loopback interface that nobody uses now."""
    drawn = SystemRandom().sample(DRAWN_PORTS, len(DRAWN_PORTS))
    return list(islice(filter(is_port_free, drawn), n_ports))


def is_port_free(port: int) -> bool:
    """Whether a server could listen on the loopback port now."""
    with closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def start(
    name: str,
    command: Sequence[str],
    environment: Mapping[str, str],
    log: Path,
    url: str | None = None,
    outlives: bool = True,
) -> Server:
    """Start a server; its output goes to ``log``.

    Unless it ``outlives`` this process, it ends with it, even if this process is killed. Raises
    ``SetupError`` when the log cannot be written.
    """
    guarded = () if outlives else (sys.executable, "-P", guard.__file__)
    with _opened(log) as output:
        process = subprocess.Popen(
            [*guarded, *command],
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL if outlives else subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    _children.append(process)
    started_at = psutil.Process(process.pid).create_time()
    return Server(name, process.pid, started_at, url, str(log))


def _opened(log: Path) -> BinaryIO:
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        return log.open("ab")
    except OSError as error:
        raise SetupError(
            f"cannot write {log} ({error}); set EMBEDLAKE_HOME to a folder you may write"
        ) from error


def is_running(server: Server) -> bool:
    """Whether this very process still runs."""
    try:
        process = psutil.Process(server.pid)
        return (
            process.create_time() == server.started_at and process.status() != psutil.STATUS_ZOMBIE
        )
    except psutil.NoSuchProcess:
        return False


def wait_until(is_ready: Callable[[], bool], server: Server, seconds: float) -> None:
    """Wait for a server to be ready. Raises ``SetupError`` with the end of its log."""
    deadline = time.monotonic() + seconds
    while not is_ready():
        if not is_running(server) or time.monotonic() > deadline:
            tail = "\n".join(Path(server.log).read_text(errors="replace").splitlines()[-15:])
            raise SetupError(f"the {server.name} did not start; end of {server.log}:\n{tail}")
        time.sleep(POLL_SECONDS)


def answers(url: str, seconds: float = 2.0) -> bool:
    """Whether a GET of the URL gives any HTTP answer below 500 in that time; False for no URL."""
    try:
        with urllib.request.urlopen(url, timeout=seconds):
            return True
    except urllib.error.HTTPError as error:
        return error.code < 500
    except (OSError, ValueError, http.client.HTTPException):
        return False


def stop(*servers: Server, patience_seconds: float = STOP_SECONDS) -> None:
    """Stop servers and everything they started, all at once; those that are gone already are fine.

    What has not ended by itself after ``patience_seconds`` is killed.
    """
    family = []
    for server in servers:
        if is_running(server):
            process = psutil.Process(server.pid)
            family += [process, *process.children(recursive=True)]
    _signal(family, signal.SIGTERM)
    _, alive = psutil.wait_procs(family, timeout=patience_seconds)
    _signal(alive, signal.SIGKILL)
    psutil.wait_procs(alive, timeout=STOP_SECONDS)
    for child in [child for child in _children if child.poll() is not None]:
        _children.remove(child)
        if child.stdin is not None:
            child.stdin.close()


def _signal(processes: Sequence[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        try:
            process.send_signal(number)
        except psutil.NoSuchProcess:
            continue
