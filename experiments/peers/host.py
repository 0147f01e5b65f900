"""A process of a peer's environment that starts its program again and again, by orders on stdin.

``python -m experiments.peers.host PROGRAM MODULE...``: the modules are imported once; each start is
a fork that does what ``python PROGRAM`` would do. An order is a line of JSON, and so is the answer.
It imports nothing beside Python's own library: it runs in every environment.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import runpy
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any, NoReturn

from experiments.faults import shim

SIGNAL_AT_PARENTS_DEATH = 1
"""``PR_SET_PDEATHSIG`` of Linux's ``prctl``."""


def main() -> None:
    """Follow orders until there are no more."""
    program, *modules = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # programs that print do not print among the answers
    sys.path.insert(0, str(Path(program).parent))
    for module in modules:
        importlib.import_module(module)
    for line in sys.stdin:
        order = json.loads(line)
        match order["do"]:
            case "start":
                answer: Any = _start(program, order)
            case "wait for a stop":
                answer = _is_stopped(order["pid"], order["seconds"])
            case _:
                answer = _ended(order["pid"], order["seconds"])
        answers.write(json.dumps(answer) + "\n")


def _start(program: str, order: dict[str, Any]) -> int:
    pid = os.fork()
    if pid == 0:
        _run(program, order)
    return pid


def _run(program: str, order: dict[str, Any]) -> NoReturn:
    """Do what a process of its own would do, and say how many files it changed."""
    ctypes.CDLL(None).prctl(SIGNAL_AT_PARENTS_DEATH, signal.SIGKILL)
    folder = Path(order["folder"])
    log = os.open(folder / order["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.update(order["environment"])
    sys.argv = [program, str(folder / "corpus"), str(folder / "lake")]
    shim.arm(folder / "lake", shim.Fault(order["fault"]), order["change"], order["number"])
    status = 0
    try:
        runpy.run_path(program, run_name="__main__")
    except SystemExit as error:
        status = int(error.code or 0)
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    n_changes = shim.count()
    shim.disarm()
    (folder / "changes").write_text(str(n_changes))
    os._exit(status)


def _is_stopped(pid: int, seconds: float) -> bool:
    """Whether a program stopped; False when it ended instead."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        seen = os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT | os.WNOHANG)
        if seen is not None:
            return seen.si_code == os.CLD_STOPPED
        time.sleep(0.005)
    return False


def _ended(pid: int, seconds: float) -> int | None:
    """Exit code of a program, below zero for a signal; None while it goes on after the time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    return None


if __name__ == "__main__":
    main()
