"""Runs commands in forks of a process that has loaded their libraries.

Every command is a process of its own with its own exit code, as from a shell; but Prefect and Lance
take two seconds of a core to load, and a fork has them at once. ``python -m tests.e2e.forks`` is
the process that forks: it reads a command per line and writes its exit code.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

BIN = Path(sys.executable).parent
ENTRIES = {"embedlake": ("embedlake.cli.main", "main"), "prefect": ("prefect.cli", "app")}
"""Module and function of each program."""
READ_WHEN_LOADED = ("GOMP", "LANCE", "OMP", "OTEL", "PREFECT", "PYTHON", "RAY", "TMPDIR", "TRITON",
                    "EMBEDLAKE_LOG_FORMAT", "EMBEDLAKE_TRACES")  # fmt: skip
"""Beginnings of variables that count when libraries are loaded: a fork cannot have others."""


@dataclass(frozen=True, slots=True)
class Call:
    """A command to run."""

    program: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    folder: str
    out: str
    """Path of the file for its standard output."""
    err: str
    seconds: int
    """It is killed after so long."""


class Forks:
    """The process that forks, with the variables that it was started with."""

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        self._loaded_with = _when_loaded(environment)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.forks"],
            env=dict(environment), cwd=folder, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def can_run(self, program: str, environment: Mapping[str, str]) -> bool:
        """Whether a fork is what the program would be if it were started with these variables."""
        return program in ENTRIES and _when_loaded(environment) == self._loaded_with

    def run(self, call: Call) -> int:
        """Exit code of a command; the negative number of the signal that ended it."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(asdict(call)) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def end(self) -> None:
        """End the process that forks."""
        self._process.communicate()


def _when_loaded(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: environment[name] for name in environment if name.startswith(READ_WHEN_LOADED)}


def _load() -> None:
    """Load what commands load. ``lancedb`` starts a thread and Ray servers' clients: a command
    loads them when it needs them."""
    from embedlake.deploying.deploy_file import FLOWS
    from embedlake.environment import process_environment

    os.environ.update(process_environment())
    for module, _ in ENTRIES.values():
        import_module(module)
    for flow in FLOWS:
        import_module(f"embedlake.flows.{flow}")
    assert threading.active_count() == 1, "a fork has no other threads"
    gc.freeze()  # what is shared stays shared


def _become(call: dict[str, Any]) -> None:
    """Turn a fork into the process of a command, up to its first line of code."""
    signal.alarm(call["seconds"])
    os.environ.clear()
    os.environ.update(call["environment"])
    os.chdir(call["folder"])
    sys.argv = [str(BIN / call["program"]), *call["arguments"]]
    sys.path[0] = str(BIN)
    for descriptor, path, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, call["out"], os.O_WRONLY | os.O_CREAT),
        (2, call["err"], os.O_WRONLY | os.O_CREAT),
    ):
        os.dup2(os.open(path, flags), descriptor)


def serve() -> str | None:
    """Fork for each line; returns the program of a fork, None at the end of the input."""
    for line in sys.stdin:
        if (pid := os.fork()) == 0:
            call = json.loads(line)
            _become(call)
            return str(call["program"])
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
    return None


if __name__ == "__main__":
    _load()
    if (program := serve()) is not None:
        module, function = ENTRIES[program]
        sys.exit(getattr(import_module(module), function)())
