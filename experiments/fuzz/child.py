"""A process that reads inputs, one after the other, and says what became of each.

A reader that kills its process, or never comes to an end, costs this process alone.
"""

from __future__ import annotations

import base64
import faulthandler
import json
import logging
import os
import resource
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from experiments.fuzz.mutation import made
from experiments.fuzz.target import Check, Target, Wrong, target_named

LONGEST_CPU_SECONDS = 30.0
"""Most work that an input may cost."""
SAID_AFTER_SECONDS = 1_000.0
"""Where an input is that has not ended after this time is said, before the process is killed."""
MOST_MIB = 1_536
"""Most memory that an input may take beside what the process had."""
ADDRESS_MIB = 24 * 1_024
"""The process may not map more; a library that is told to allocate more hears no."""
MIB = 2**20
READY = "ready\n"
"""Said once, before the first line."""


@dataclass(frozen=True, slots=True)
class Line:
    """What became of an input."""

    number: int
    ending: str
    cpu_seconds: float
    mib: float
    """Peak memory beside what the process had before."""
    wrong: str | None = None
    """Which promise was broken."""
    data: str = ""
    """The input in base64, where a promise was broken."""


def main() -> None:
    """Read inputs of the target, seed, first number and count that the command line has."""
    lines = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # libraries that print do not stand among the lines
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    name, seed, first, count = sys.argv[1:]
    target, numbers = target_named(name), range(int(first), int(first) + int(count))
    material = target.material()
    with opened(target) as check:
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_MIB * MIB, resource.RLIM_INFINITY))
        lines.write(READY)
        for number in numbers:
            faulthandler.dump_traceback_later(SAID_AFTER_SECONDS)
            line = read_input(check, number, made(material, target.name, int(seed), number))
            lines.write(json.dumps(asdict(line)) + "\n")


@contextmanager
def opened(target: Target) -> Iterator[Check]:
    """What reads inputs, after it has read the good ones: what is loaded once is loaded then."""
    folder = TemporaryDirectory(prefix="embedlake-fuzz-")
    with folder as path, target.opened(Path(path)) as check:
        for good in target.seeds():
            check(good)
        yield check


def read_input(check: Check, number: int, data: bytes) -> Line:
    """Read an input; what became of it."""
    before_mib, before_seconds = _reset_peak(), time.process_time()
    ending, wrong = "wrong", None
    try:
        ending = check(data)
    except Wrong as error:
        wrong = str(error)
    except BaseException as error:
        wrong = _named(error)
    cpu_seconds, mib = time.process_time() - before_seconds, _peak_mib() - before_mib
    if wrong is None and cpu_seconds > LONGEST_CPU_SECONDS:
        wrong = f"{cpu_seconds:.0f} s of work, the limit is {LONGEST_CPU_SECONDS:.0f}"
    if wrong is None and mib > MOST_MIB:
        wrong = f"{mib:.0f} MiB of memory, the limit is {MOST_MIB}"
    shown = "" if wrong is None else base64.b64encode(data).decode()
    return Line(number, ending, round(cpu_seconds, 4), round(max(0.0, mib), 1), wrong, shown)


def _named(error: BaseException) -> str:
    """Class, message and origin of an error that nothing should raise."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "embedding_core" in frame.filename] or frames
    where = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "?"
    message = " ".join(str(error).split())[:300].encode("ascii", "backslashreplace").decode()
    return f"{type(error).__name__} at {where}: {message}"


def _reset_peak() -> float:
    """Memory now, in MiB; the peak is counted from here on."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _peak_mib() -> float:
    return _status("VmHWM")


def _status(name: str) -> float:
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1]) / 1_024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_024


if __name__ == "__main__":
    main()
