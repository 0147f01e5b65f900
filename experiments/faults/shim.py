"""Faults in system calls: the shim compiled, loaded into this process, and armed."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from enum import IntEnum
from pathlib import Path

from benchmarks.machine import ROOT

SOURCE = Path(__file__).with_name("shim.c")
NEVER = 2**62
"""A change that no run reaches: the shim then only counts."""
KILLED = 137
"""Exit status of a process that the shim killed."""


class Fault(IntEnum):
    """What happens at the chosen change of a file, in the order of the shim's ``enum fault``."""

    KILL_BEFORE = 0
    KILL_AMID = 1
    """Half of a write is written; any other call is done."""
    STOP = 2
    FAIL_ONCE = 3
    FAIL_FROM_THEN_ON = 4
    JUMP = 5
    """The clock of the whole process, Lance's too, jumps and goes on from there."""


FAILURES = (Fault.FAIL_ONCE, Fault.FAIL_FROM_THEN_ON)
"""The shim counts no removal where calls fail: it needs no room."""


def missing() -> str | None:
    """Why there can be no shim on this machine; None where there can."""
    if sys.platform != "linux":
        return "the shim needs Linux"
    return None if shutil.which("gcc") else "the shim needs gcc"


def is_loaded() -> bool:
    """Whether this process has the shim."""
    return "LD_PRELOAD" in os.environ


def restart_with_shim(module: str, arguments: Sequence[str]) -> None:
    """Make this process the same program with the shim loaded; returns when it is loaded."""
    if is_loaded():
        return
    library = ROOT / "build" / "faults-shim.so"
    library.parent.mkdir(exist_ok=True)
    new = library.with_suffix(f".{os.getpid()}")
    command = ["gcc", "-O2", "-shared", "-fPIC", "-o", str(new), str(SOURCE), "-ldl"]
    subprocess.run(command, check=True)
    new.replace(library)
    # Fewer threads than cores are no loss here, and a fork with threads is fragile.
    environment = os.environ | {"LD_PRELOAD": str(library), "OPENBLAS_NUM_THREADS": "1"}
    warnings = "ignore:lance is not fork-safe,ignore:lancedb fork support is experimental"
    environment |= {"PYTHONWARNINGS": warnings, "LANCE_LOG": "error"}
    os.execve(sys.executable, [sys.executable, "-m", module, *arguments], environment)


def arm(folder: Path, fault: Fault, change: int = NEVER, number: int = 0) -> None:
    """Let ``fault`` happen at a change of a file below ``folder``; changes are counted from 1.

    ``number``: of the error with which a call fails, or of seconds that the clock jumps.
    """
    _library().shim_arm(str(folder).encode(), ctypes.c_long(change), int(fault), number)


def record(log: Path | None) -> None:
    """Write every change of a file below the armed folder into a log from now on; None: no more."""
    _library().shim_record(None if log is None else str(log).encode())


def jump(seconds: int) -> None:
    """Let the clock of this process jump."""
    _library().shim_jump(seconds)


def disarm() -> None:
    """Let nothing happen any more."""
    if is_loaded():
        _library().shim_disarm()


def count() -> int:
    """Changes since the shim was armed."""
    return int(_library().shim_count())


def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(os.environ["LD_PRELOAD"])
    library.shim_count.restype = ctypes.c_long
    return library
