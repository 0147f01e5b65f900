"""Child processes that may be killed, stopped and woken. Lance does not survive a fork, so the
parent never calls it. A child dies with its parent."""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from tempfile import TemporaryFile
from typing import IO, Any

from embedding_core.errors import words
from experiments.faults import shim

LONGEST_SECONDS = 600.0
LONGEST_ERROR = 2_000
SIGNAL_AT_PARENTS_DEATH = 1
"""``PR_SET_PDEATHSIG`` of Linux's ``prctl``."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a child ended."""

    status: int
    """Exit status: 0, 1 after an error, 137 when killed by the shim; below zero, a signal."""
    value: Any = None
    """What the action returned."""
    error: str = ""
    """Class and message of the error that the action raised."""
    is_hang: bool = False
    """It took too long and was killed."""

    @property
    def kind(self) -> str:
        """The ending in a word: ``done``, ``killed``, or the error's class."""
        if self.error:
            return self.error.partition(":")[0]
        words = {0: "done", shim.KILLED: "killed", -signal.SIGKILL: "killed"}
        return words.get(self.status, f"status {self.status}")


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

    def kill(self) -> None:
        """Kill the child, unless it ended."""
        os.kill(self.pid, signal.SIGKILL)

    def ending(self, longest_seconds: float = LONGEST_SECONDS) -> Ending:
        """Wait for the end; a child that takes too long is killed."""
        deadline = time.monotonic() + longest_seconds
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                error = f"Hang: no end after {longest_seconds} s"
                return Ending(-signal.SIGKILL, error=error, is_hang=True)
            time.sleep(0.002)
        with self._said:
            self._said.seek(0)
            return Ending(
                os.waitstatus_to_exitcode(status), **json.loads(self._said.read() or "{}")
            )


def in_child(action: Callable[[], Any]) -> Ending:
    """Do an action in a child and wait for its end."""
    return Child(action).ending()


def loaded_modules() -> list[str]:
    """The modules that this process has imported."""
    return list(sys.modules)


def load_modules(names: Sequence[str]) -> None:
    """Import modules; those that cannot be imported by their names are left out."""
    for name in names:
        if name not in sys.modules:
            with suppress(ImportError, AttributeError):
                importlib.import_module(name)
    gc.freeze()  # collections in children pass over all of it


def _act(action: Callable[[], Any], said: IO[str]) -> None:
    """Do the action, say what came of it, and end this process."""
    ctypes.CDLL(None).prctl(SIGNAL_AT_PARENTS_DEATH, signal.SIGKILL)
    try:
        content, status = {"value": action()}, 0
    except BaseException as error:
        content, status = {"error": f"{type(error).__name__}: {words(error)}"[:LONGEST_ERROR]}, 1
    shim.disarm()
    said.write(json.dumps(content))
    said.flush()
    os._exit(status)
