"""What the lake costs at size: index, commits, plans, maintenance; with LanceDB's own calls beside.

    python -m benchmarks.lake
    python -m benchmarks.lake --only index --only commit

Every case runs in a process of its own, so its peak memory is its own, and on made-up vectors or
the hashing encoder, so that no model's time is in it. Each prints its figures and writes
``benchmarks/results/lake-<case>.json``. See ``benchmarks/README.md`` for what they say.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.lake_cases import commits, indexes, maintained, plans, runs
from benchmarks.machine import RESULTS, about

Case = Callable[[Path], dict[str, Any]]
CASES: dict[str, Case] = {
    "pays": indexes.pays,
    "kinds": indexes.kinds,
    "index": indexes.million,
    "commit": commits.ten_thousand_fragments,
    "one-changed": commits.one_changed_file,
    "compaction": maintained.compaction,
    "incremental": maintained.thousand_commits,
    "plan": plans.ten_thousand_files,
    "tiny-files": plans.hundred_thousand_files,
    "tiny-run": runs.tiny_against_large,
    "minilm": runs.minilm,
}
"""By name; each gets an empty folder and gives its figures."""


def main() -> None:
    """Run the cases asked for, write what they gave."""
    names = _arguments().only or list(CASES)
    origin = about("lake", ("lancedb", "pylance", "pyarrow", "numpy"))
    for name in names:
        started = time.perf_counter()
        figures = _in_own_process(name)
        figures |= {"case_seconds": round(time.perf_counter() - started, 1)}
        target = RESULTS / f"lake-{name}.json"
        target.write_text(json.dumps(origin | {"case": name, "figures": figures}, indent=1) + "\n")
        print(f"{name}: {json.dumps(figures, indent=1)}", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--only", action="append", choices=list(CASES), help="a case to run; default: all"
    )
    return parser.parse_args()


def _in_own_process(name: str) -> dict[str, Any]:
    spawn = multiprocessing.get_context("spawn")  # Lance does not survive a fork
    receiving, sending = spawn.Pipe(duplex=False)
    process = spawn.Process(target=_run, args=(name, sending))
    process.start()
    sending.close()
    try:
        figures: dict[str, Any] = receiving.recv()
    except EOFError:
        raise SystemExit(f"the case {name} ended without figures; see above") from None
    finally:
        process.join()
    return figures


def _run(name: str, sending: Connection) -> None:
    with tempfile.TemporaryDirectory(prefix="embedlake-bench-") as folder:
        figures = CASES[name](Path(folder))
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    sending.send(figures | {"peak_memory_mib": round(peak_bytes / 2**20)})


if __name__ == "__main__":
    main()
