"""How far a run grows: 1, 2, 4, 8 and 16 workers whose encoder sleeps as a GPU would compute.

    python -m benchmarks.scaling
    python -m benchmarks.scaling --workers 1 8 --units 4 --seconds 4
    python -m benchmarks.scaling --mixed --workers 4 8

``embedlake embed`` joins a Ray cluster of one node with as many made-up GPUs as workers, on a
Prefect server of its own; each worker has as many units to do, each of some seconds of sleep. All
runs on this machine's cores, so texts are short: what cutting costs is ``benchmarks.chunking``.
``efficiency`` is the time slept of the time that all workers had, from the moment when the last of
them began its first unit to the moment when the first of them had ended its last;
``whole_efficiency`` counts from the first forward pass to the last. CPU-seconds of the flow's
process and of the Prefect server are divided by the units. Writes ``results/scaling.json``.

With ``--mixed`` every second worker is four times slower. Each number of workers runs twice: with
units of one file, which cannot be cut, and with units packed of files, of which the last are cut by
the rates that were measured. ``of_ideal`` is the time that all workers together need, of the time
from the first forward pass to the last; ``tail_seconds`` the time from the moment when the first
worker had ended to the moment when the last had. Writes ``results/scaling-mixed.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.machine import RESULTS, ROOT, about
from benchmarks.scaling_cases import sleeping
from embedding_core.registry import ENGINES
from embedlake.local import processes

WORKERS = (1, 2, 4, 8, 16)
DIM, WORDS, DOCUMENTS = 384, 20, 500
"""Of a document its words, of a unit its documents."""
TIMES_SLOWER, FILES_OF_A_UNIT = 4, 16
"""With ``--mixed``."""
LEAST = {8: 0.95, 16: 0.90}
"""Efficiency that must be reached."""
JOINED_SECONDS = 120.0


def main() -> None:
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workers", type=int, nargs="+", default=WORKERS)
    parser.add_argument("--units", type=int, default=12, help="units of each worker")
    parser.add_argument("--seconds", type=float, default=8.0, help="sleep of a unit")
    parser.add_argument("--mixed", action="store_true", help="every second worker is slower")
    arguments = parser.parse_args()
    name = "scaling-mixed" if arguments.mixed else "scaling"
    cases = (Case(TIMES_SLOWER, 1), Case(TIMES_SLOWER, FILES_OF_A_UNIT))
    runs = []
    for n_workers in arguments.workers:
        for case in cases if arguments.mixed else (Case(),):
            with tempfile.TemporaryDirectory(prefix="embedlake-bench-") as folder:
                runs.append(_run(Path(folder), n_workers, arguments.units, arguments.seconds, case))
            print(json.dumps(runs[-1]), flush=True)
    result = about(name, ("ray", "prefect", "lancedb")) | {
        "unit": {"seconds": arguments.seconds, "documents": DOCUMENTS, "dimensions": DIM},
        "runs": runs,
    }
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")


@dataclass(frozen=True, slots=True)
class Case:
    """What the workers of a run are like, and what it works on."""

    times_slower: int = 1
    """Every second worker is so many times slower than the others."""
    files_of_a_unit: int = 1

    def rates(self, n_workers: int) -> float:
        """What all workers do together, in units of what a fast one does."""
        n_slow = (n_workers + 1) // 2
        return n_workers - n_slow + n_slow / self.times_slower

    @property
    def options(self) -> tuple[str, ...]:
        """Of ``embedlake embed``: how units are made."""
        if self.files_of_a_unit == 1:
            return ("--set", "unit=file")
        n_bytes = sum(map(len, map(str.encode, _lines(0, DOCUMENTS))))
        return ("--set", f"unit_bytes={n_bytes}")


def _run(folder: Path, n_workers: int, n_units: int, seconds: float, case: Case) -> dict[str, Any]:
    """A run of ``n_workers`` times ``n_units`` units, each of so many seconds of a fast worker."""
    total_units = n_workers * n_units
    n_files = total_units * case.files_of_a_unit
    _write(folder / "src", n_files, DOCUMENTS // case.files_of_a_unit)
    rate = DOCUMENTS * (len(_text(0, 0)) // sleeping.WORD_CHARACTERS) / seconds
    recipe = folder / "recipe.yaml"
    recipe.write_text(json.dumps(_recipe(folder, f"{rate}:{case.times_slower}")))
    passes = folder / "passes"
    passes.mkdir()
    environment = os.environ | {
        "EMBEDLAKE_HOME": str(folder / "home"),
        "PREFECT_API_URL": "",
        "PYTHONPATH": os.pathsep.join((str(_plugin(folder)), str(ROOT))),
        sleeping.LOG: str(passes),
    }
    with _cluster(folder, environment, n_workers) as joined:
        report, cpu_seconds = _embed(recipe, environment | joined, case.options)
    slept = Slept.read(passes)
    same = {
        "workers": n_workers,
        "units": total_units,
        "rows": report["rows"],
        "processes_that_loaded_the_model": len(slept.by_process),
    }
    if case.times_slower > 1:
        ideal_seconds = report["rows"] / DOCUMENTS * seconds / case.rates(n_workers)
        return same | {
            "files_of_a_unit": case.files_of_a_unit,
            "of_ideal": round(ideal_seconds / slept.seconds, 3),
            "tail_seconds": round(slept.tail_seconds, 2),
            "run_seconds": report["seconds"],
        }
    return same | {
        "efficiency": round(slept.efficiency(), 3),
        "reached": slept.efficiency() >= LEAST.get(n_workers, 0.0),
        "whole_efficiency": round(slept.whole_efficiency(n_workers), 3),
        "run_seconds": report["seconds"],
        "cpu_seconds_a_unit": {
            name: round(taken / total_units, 3) for name, taken in cpu_seconds.items()
        },
    }


@dataclass(frozen=True, slots=True)
class Slept:
    """When each process slept: (began, ended), seconds since the epoch."""

    by_process: tuple[tuple[tuple[float, float], ...], ...]

    @classmethod
    def read(cls, folder: Path) -> Slept:
        """What the encoders wrote down."""
        return cls(
            tuple(
                tuple(
                    (float(began), float(ended))
                    for began, ended in map(str.split, path.read_text().splitlines())
                )
                for path in sorted(folder.iterdir())
            )
        )

    def efficiency(self) -> float:
        """Share of the time in which every process had work."""
        start = max(passes[0][0] for passes in self.by_process)
        end = min(passes[-1][1] for passes in self.by_process)
        slept = sum(
            max(0.0, min(ended, end) - max(began, start))
            for passes in self.by_process
            for began, ended in passes
        )
        return slept / (len(self.by_process) * (end - start))

    @property
    def seconds(self) -> float:
        """The time from the first pass to the last."""
        began = min(passes[0][0] for passes in self.by_process)
        return max(passes[-1][1] for passes in self.by_process) - began

    @property
    def tail_seconds(self) -> float:
        """The time in which some workers had ended and others had not."""
        ends = [passes[-1][1] for passes in self.by_process]
        return max(ends) - min(ends)

    def whole_efficiency(self, n_workers: int) -> float:
        """Share of the time from the first pass to the last."""
        slept = sum(ended - began for passes in self.by_process for began, ended in passes)
        return slept / (n_workers * self.seconds)


def _recipe(folder: Path, rate: str) -> dict[str, Any]:
    return {
        "name": "scaling",
        "source": {"uri": str(folder / "src"), "id": "id"},
        "chunk": {"strategy": "none"},
        "model": {"name": f"{sleeping.PREFIX}{rate}", "dim": DIM},
        "lake": {"uri": str(folder / "lake"), "table": "docs"},
        "index": {"min_rows": 10_000_000},
    }


def _write(folder: Path, n_files: int, n_documents: int) -> None:
    folder.mkdir()
    for number in range(n_files):
        (folder / f"{number:05}.jsonl").write_text("".join(_lines(number, n_documents)))


def _lines(number: int, n_documents: int) -> Iterator[str]:
    for row in range(n_documents):
        yield json.dumps({"id": str(row), "text": _text(number, row)}) + "\n"


def _text(number: int, row: int) -> str:
    return f"{number:05} {row:05} " + "words " * (WORDS - 2)


def _plugin(folder: Path) -> Path:
    """A folder for Python's path in which a distribution names the engine."""
    metadata = folder / "plugin" / "sleeping-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: sleeping\nVersion: 1.0\n")
    points = f"[{ENGINES}]\nsleeping = benchmarks.scaling_cases.sleeping:SLEEPING\n"
    (metadata / "entry_points.txt").write_text(points)
    return metadata.parent


@contextmanager
def _cluster(folder: Path, environment: dict[str, str], n_workers: int) -> Iterator[dict[str, str]]:
    """A Ray node with so many made-up GPUs; what a run needs to join it."""
    (port,) = processes.free_ports(1)
    log = folder / "node.log"
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "e" * 64}
    command = (
        str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", f"--port={port}",
        f"--num-cpus={n_workers + 2}", f"--num-gpus={n_workers}", "--include-dashboard=false",
        "--object-store-memory=200000000", "--disable-usage-stats",
    )  # fmt: skip
    node = processes.start("ray", list(command), environment | token, log)
    try:
        processes.wait_until(lambda: "block forever" in log.read_text(), node, JOINED_SECONDS)
        yield token | {"EMBEDLAKE_RAY_ADDRESS": f"127.0.0.1:{port}"}
    finally:
        processes.stop(node)


def _embed(
    recipe: Path, environment: dict[str, str], options: Sequence[str]
) -> tuple[dict[str, Any], dict[str, float]]:
    """The report of ``embedlake embed``; CPU-seconds of its process and of the Prefect server."""
    program = str(Path(sys.executable).with_name("embedlake"))
    command = (
        program, "embed", str(recipe), "--json", "--set", "gpus_per_task=1",
        "--set", "device=cpu", *options,
    )  # fmt: skip
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        taken: dict[str, float] = {}
        watcher = threading.Thread(target=_watch, args=(psutil.Process(run.pid), taken))
        watcher.start()
        out, err = run.communicate()
        watcher.join()
    if run.returncode:
        raise SystemExit(f"embedlake embed ended with {run.returncode}: {err[-2_000:]}")
    report: dict[str, Any] = json.loads(out)
    return report, taken


def _watch(flow: psutil.Process, taken: dict[str, float]) -> None:
    """CPU-seconds of the flow and of its server, the last that were seen."""
    while flow.is_running() and flow.status() != psutil.STATUS_ZOMBIE:
        try:
            taken["flow"] = _cpu_seconds(flow)
            servers = [child for child in flow.children(recursive=True) if _is_server(child)]
            if servers:
                taken["prefect_server"] = sum(map(_cpu_seconds, servers))
        except psutil.NoSuchProcess:
            continue
        threading.Event().wait(0.5)


def _is_server(process: psutil.Process) -> bool:
    return _names_server(process.cmdline())


def _names_server(command: Sequence[str]) -> bool:
    return "prefect" in command and "server" in command


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


if __name__ == "__main__":
    main()
