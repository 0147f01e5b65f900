"""A peer at work: its environment, its program, and a folder of files, table and state."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.machine import ROOT
from experiments.faults.shim import NEVER, Fault
from experiments.peers.corpus import Corpus, first_state, second_state, write
from experiments.peers.oracle import kinds_of_wrong, newest_version
from experiments.peers.programs.hashed_words import SECONDS_PER_TEXT

HERE = Path(__file__).parent
LONGEST_SECONDS = 180.0
"""A program that takes longer hangs."""
LAST_CHARACTERS = 400


@dataclass(frozen=True, slots=True)
class Tool:
    """What a peer is made of."""

    program: str
    modules: Sequence[str]
    """What the program imports and a fork does not break: imported once for all its starts."""
    packages: Sequence[str]
    """Those whose versions a result names."""


TOOLS = {
    "embedlake": Tool(
        "with_embedlake.py",
        ("experiments.faults.stage", "experiments.faults.kills.marks"),
        ("lancedb", "pylance"),
    ),
    "CocoIndex": Tool(
        "with_cocoindex.py",
        ("lancedb", "numpy.typing"),
        ("cocoindex", "lancedb"),
    ),
    "LlamaIndex": Tool(
        "with_llamaindex.py",
        ("llama_index.core.ingestion", "llama_index.core.node_parser",
         "llama_index.core.embeddings", "llama_index.core.storage.docstore",
         "llama_index.vector_stores.lancedb", "tiktoken"),
        ("llama-index-core", "llama-index-vector-stores-lancedb", "lancedb"),
    ),
    "merge_insert": Tool("with_merge_insert.py", ("lancedb", "pyarrow"), ("lancedb",)),
}  # fmt: skip


def environment(name: str, folder: Path) -> Path:
    """The Python of a peer's environment, which is made from its file if it is not there."""
    if name == "embedlake":
        return Path(sys.executable)
    python = folder / name.lower() / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(python.parents[1])], check=True)
        requirements = HERE / "environments" / f"{name.lower()}.txt"
        install = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "-r"]
        subprocess.run([*install, str(requirements)], check=True)
    return python


def versions(name: str) -> dict[str, str]:
    """Versions of a peer's packages."""
    tool = TOOLS[name]
    if name == "embedlake":
        return {package: version(package) for package in tool.packages}
    lines = (HERE / "environments" / f"{name.lower()}.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if "==" in line)
    return {package: pinned[package] for package in tool.packages}


class Peer:
    """A tool whose table has the first state of the files, and whose folder has the second."""

    def __init__(self, name: str, python: Path, folder: Path) -> None:
        self.name = name
        self.before, self.corpus = first_state(), second_state()
        self._now, self._saved = folder / "now", folder / "saved"
        self._now.mkdir(parents=True)
        self.lake = self._now / "lake"
        self.lake.mkdir()
        self._host = self._started(python)
        self._load_first_state()
        self.version = newest_version(self.lake)
        """Newest version of the table before anything is done."""
        self.n_changes = self._counted()
        self._slow_seconds: float | None = None

    def close(self) -> None:
        """End the host."""
        assert self._host.stdin is not None and self._host.stdout is not None
        self._host.stdin.close()
        self._host.wait(10)
        self._host.stdout.close()

    def put_back(self) -> None:
        """Make everything as it was before anything was done."""
        shutil.rmtree(self._now)
        shutil.copytree(self._saved, self._now)

    def start(
        self,
        fault: Fault = Fault.KILL_BEFORE,
        change: int = NEVER,
        number: int = 0,
        seconds_per_text: float = 0.0,
        log: str = "log",
    ) -> int:
        """Start the program, with a fault at a change of a file; its process id."""
        pid = self._ask(
            do="start",
            folder=str(self._now),
            environment={SECONDS_PER_TEXT: str(seconds_per_text)},
            fault=int(fault),
            change=change,
            number=number,
            log=log,
        )
        return int(pid)

    def ended(self, pid: int, seconds: float = LONGEST_SECONDS) -> int | None:
        """Exit code of a started program; None when it goes on after the time."""
        status: int | None = self._ask(do="wait", pid=pid, seconds=seconds)
        return status

    def end(self, pid: int) -> int:
        """Wait for the end of a started program; kill it when it hangs. Its exit code."""
        status = self.ended(pid)
        if status is None:
            os.kill(pid, signal.SIGKILL)
            status = self.ended(pid)
        assert status is not None
        return status

    def run(self, **how: Any) -> int:
        """Start the program and wait for its end; its exit code."""
        return self.end(self.start(**how))

    def slow_seconds(self, seconds_per_text: float) -> float:
        """How long an update takes with a slow encoder when nothing fails."""
        if self._slow_seconds is None:
            started = time.monotonic()
            self._run_well(self.corpus, seconds_per_text=seconds_per_text)
            self._slow_seconds = time.monotonic() - started
            self.put_back()
        return self._slow_seconds

    def changes(self) -> int:
        """Changes of files that the last program to end by itself made."""
        return int((self._now / "changes").read_text())

    def is_stopped(self, pid: int) -> bool:
        """Whether a started program stopped at its change; False when it ended instead."""
        return bool(self._ask(do="wait for a stop", pid=pid, seconds=LONGEST_SECONDS))

    def said(self, log: str = "log") -> str:
        """The end of what the program said last."""
        text = (self._now / log).read_text(errors="replace") if (self._now / log).exists() else ""
        return " ".join(text.split())[-LAST_CHARACTERS:]

    def _started(self, python: Path) -> subprocess.Popen[str]:
        tool = TOOLS[self.name]
        command = [str(python), "-m", "experiments.peers.host"]
        paths = [str(HERE / "programs" / tool.program), *tool.modules]
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "COCOINDEX_DISABLE_USAGE_TRACKING": "1",
        }
        return subprocess.Popen(
            [*command, *paths], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            cwd=ROOT, env=environment, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def _ask(self, **order: Any) -> Any:
        assert self._host.stdin is not None and self._host.stdout is not None
        self._host.stdin.write(json.dumps(order) + "\n")
        self._host.stdin.flush()
        return json.loads(self._host.stdout.readline())

    def _load_first_state(self) -> None:
        write(self._now / "corpus", self.before)
        self._run_well(self.before)
        write(self._now / "corpus", self.corpus)
        shutil.copytree(self._now, self._saved)

    def _counted(self) -> dict[bool, int]:
        """Changes of files that an update makes, by whether calls fail there, which leaves removals
        out."""
        counts = {}
        for fault in (Fault.KILL_BEFORE, Fault.FAIL_ONCE):
            self.put_back()
            self._run_well(self.corpus, fault=fault)
            counts[fault is Fault.FAIL_ONCE] = self.changes()
        return counts

    def _run_well(self, corpus: Corpus, **how: Any) -> None:
        """Do an update when nothing fails; the table must be right then."""
        if status := self.run(**how):
            raise RuntimeError(f"{self.name} ended with {status}: {self.said()}")
        if wrong := kinds_of_wrong(self.lake, corpus):
            raise RuntimeError(f"{self.name} is wrong when nothing fails: {wrong}")
