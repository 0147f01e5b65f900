"""Benchmarks of several cases: each in a process of its own, each with a result file of its own."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.machine import RESULTS, about

Case = Callable[[Path], dict[str, Any]]
"""Gets an empty folder, gives its figures."""


def run_cases(
    benchmark: str, cases: Mapping[str, Case], packages: Sequence[str], description: str | None
) -> None:
    """Run the cases that the command line names, all by default; write what they gave.

    A case runs in its own process, so that its peak memory is its own.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--only", action="append", choices=list(cases), help="a case to run; default: all"
    )
    names = parser.parse_args().only or list(cases)
    origin = about(benchmark, packages)
    for name in names:
        started = time.perf_counter()
        figures = _in_own_process(name, cases[name])
        figures |= {"case_seconds": round(time.perf_counter() - started, 1)}
        target = RESULTS / f"{benchmark}-{name}.json"
        target.write_text(json.dumps(origin | {"case": name, "figures": figures}, indent=1) + "\n")
        print(f"{name}: {json.dumps(figures, indent=1)}", flush=True)


def _in_own_process(name: str, case: Case) -> dict[str, Any]:
    spawn = multiprocessing.get_context("spawn")  # Lance does not survive a fork
    receiving, sending = spawn.Pipe(duplex=False)
    process = spawn.Process(target=_run, args=(case, sending))
    process.start()
    sending.close()
    try:
        figures: dict[str, Any] = receiving.recv()
    except EOFError:
        raise SystemExit(f"the case {name} ended without figures; see above") from None
    finally:
        process.join()
    return figures


def _run(case: Case, sending: Connection) -> None:
    with tempfile.TemporaryDirectory(prefix="embedlake-bench-") as folder:
        figures = case(Path(folder))
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    sending.send(figures | {"peak_memory_mib": round(peak_bytes / 2**20)})
