"""Child processes that may be killed, stopped and woken. Lance does not survive a fork, so the
parent never calls it."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from tempfile import TemporaryFile
from typing import IO, Any

from embedding_core.errors import words
from experiments.faults import shim

LONGEST_SECONDS = 120.0
LONGEST_ERROR = 2_000


@dataclass(frozen=True, slots=True)
class Ending:
    """How a child ended."""

    status: int
    """Exit status: 0, 1 after an error, 137 when killed by the shim; below zero, a signal."""
    value: Any = None
    """What the action returned."""
    error: str = ""
    """Class and message of the error that the action raised."""

    @property
    def kind(self) -> str:
        """The ending in a word: ``done``, ``killed``, or the error's class."""
        if self.error:
            return self.error.partition(":")[0]
        return {0: "done", shim.KILLED: "killed"}.get(self.status, f"status {self.status}")


class Child:
    """A forked process that does an action, which returns something that JSON can carry."""

    def __init__(self, action: Callable[[], Any]) -> None:
        self._said = TemporaryFile("w+")  # noqa: SIM115  # a pipe would block when it is full
        self.pid = os.fork()
        if self.pid == 0:
            _act(action, self._said)

    def wait_for_stop(self) -> bool:
        """Whether the child stopped; False when it ended instead."""
        seen = os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        return seen is not None and seen.si_code == os.CLD_STOPPED

    def wake(self) -> None:
        """Let a stopped child go on."""
        os.kill(self.pid, signal.SIGCONT)

    def ending(self) -> Ending:
        """Wait for the end; a child that takes too long is killed."""
        deadline = time.monotonic() + LONGEST_SECONDS
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                return Ending(-signal.SIGKILL, error=f"Hang: no end after {LONGEST_SECONDS} s")
            time.sleep(0.005)
        with self._said:
            self._said.seek(0)
            return Ending(
                os.waitstatus_to_exitcode(status), **json.loads(self._said.read() or "{}")
            )


def in_child(action: Callable[[], Any]) -> Ending:
    """Do an action in a child and wait for its end."""
    return Child(action).ending()


def _act(action: Callable[[], Any], said: IO[str]) -> None:
    """Do the action, say what came of it, and end this process."""
    try:
        content, status = {"value": action()}, 0
    except BaseException as error:
        content, status = {"error": f"{type(error).__name__}: {words(error)}"[:LONGEST_ERROR]}, 1
    shim.disarm()
    said.write(json.dumps(content))
    said.flush()
    os._exit(status)
