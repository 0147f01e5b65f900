"""A Prefect server, its worker and a Ray cluster on loopback, which a process starts once."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal
from unittest.mock import patch

import psutil

from embedding_core.errors import SetupError
from embedlake.local import processes
from embedlake.local.processes import LOOPBACK, Server
from tests.waiting import Pieces, waiting_engine

Part = Literal["server", "worker", "head", "node"]
"""``node``: of Ray, beside its head."""

BIN = Path(sys.executable).parent
START_SECONDS, END_SECONDS = 240.0, 60.0
NODE_ADDRESS = "127.0.0.3"
"""A machine of its own to Ray, so that no run that joins takes this node for its own."""
NODE_BLOCKS = "block forever"
"""What ``ray start --block`` says when the node has joined."""
POOL = "embedlake"
RAY_PARTS: tuple[Part, ...] = ("head", "node")
TASK_TITLES = ("ray::chunk", "ray::embed")
"""How Ray calls processes that have a task of a run."""


@dataclass
class Services:
    """Parts that are started when somebody needs them, killed, and started again."""

    folder: Path
    pieces: Pieces
    stack: ExitStack
    variables: Mapping[str, str] = field(default_factory=dict)
    """Further ones of every part."""
    running: dict[Part, Server] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = ("server", "worker", "head", "head metrics", "node metrics")
        self._ports = dict(zip(names, processes.free_ports(len(names)), strict=True))
        self._ray_folder = self.stack.enter_context(
            tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True)
        )

    @property
    def api_url(self) -> str:
        """The Prefect API."""
        return f"http://{LOOPBACK}:{self._ports['server']}/api"

    @property
    def database(self) -> Path:
        """The file of the Prefect server."""
        return self.folder / "prefect" / "prefect.db"

    @property
    def environment(self) -> dict[str, str]:
        """Variables of every part and every run."""
        return {
            "LD_PRELOAD": "",
            "PREFECT_API_URL": self.api_url,
            "PREFECT_HOME": str(self.folder / "prefect"),
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "EMBEDLAKE_HOME": str(self.folder),
            "EMBEDLAKE_RAY_ADDRESS": f"{LOOPBACK}:{self._ports['head']}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": "e" * 64,
            "TMPDIR": str(self._ray_folder),
            **self.pieces.environment,
            **self.variables,
        }

    def need(self, *parts: Part) -> None:
        """Start those of the parts that do not run. On a machine that is busy enough a part of Ray
        gives up before it has started, and is started once more."""
        for part in parts:
            if part not in self.running or not processes.is_running(self.running[part]):
                try:
                    self._start(part)
                except SetupError:
                    self.kill(part)
                    self._start(part)

    def kill(self, part: Part) -> None:
        """Kill all processes of a part at once."""
        for process in self.family(part):
            _kill(process)
        processes.stop(self.running.pop(part))

    def family(self, part: Part) -> list[psutil.Process]:
        """The processes of a part."""
        try:
            first = psutil.Process(self.running[part].pid)
            return [first, *first.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def busy_workers(self) -> list[psutil.Process]:
        """Processes of Ray that have a task of a run now."""
        return [
            process
            for part in RAY_PARTS
            if part in self.running
            for process in self.family(part)
            if _title(process).startswith(TASK_TITLES)
        ]

    def end(self) -> None:
        """End everything."""
        for part in list(self.running):
            self.kill(part)
        self.stack.close()

    def _start(self, part: Part) -> None:
        log = self.folder / f"{part}.log"
        log.unlink(missing_ok=True)
        command, is_ready = self._commands(log)[part]
        server = processes.start(part, command, self.environment, log, outlives=False)
        self.running[part] = server
        processes.wait_until(is_ready, server, START_SECONDS)

    def _commands(self, log: Path) -> dict[Part, tuple[Sequence[str], Callable[[], bool]]]:
        """The command of each part, and whether it is ready."""
        prefect, ray = str(BIN / "prefect"), str(BIN / "ray")
        ports = {name: str(port) for name, port in self._ports.items()}
        nodes = [ray, "start", "--block", "--num-cpus=1", "--object-store-memory=80000000",
                 "--disable-usage-stats"]  # fmt: skip
        return {
            "server": (
                [prefect, "server", "start", "--host", LOOPBACK, "--port", ports["server"]],
                lambda: processes.answers(f"{self.api_url}/health"),
            ),
            "worker": (
                [prefect, "worker", "start", "--pool", POOL, "--type", "process"],
                lambda: "started!" in log.read_text(),
            ),
            "head": (
                [*nodes, "--head", f"--port={ports['head']}", "--include-dashboard=false",
                 f"--temp-dir={self._ray_folder}", f"--node-ip-address={LOOPBACK}",
                 f"--metrics-export-port={ports['head metrics']}"],
                lambda: NODE_BLOCKS in log.read_text(),
            ),
            "node": (
                [*nodes, f"--address={LOOPBACK}:{ports['head']}",
                 f"--node-ip-address={NODE_ADDRESS}",
                 f"--metrics-export-port={ports['node metrics']}"],
                lambda: NODE_BLOCKS in log.read_text(),
            ),
        }  # fmt: skip


def own_services(folder: Path, variables: Mapping[str, str]) -> Services:
    """Services that nobody shares; ``variables``: further ones of every part."""
    folder.mkdir(parents=True, exist_ok=True)
    stack = ExitStack()
    pieces = stack.enter_context(waiting_engine(folder))
    stack.enter_context(patch.dict(os.environ, pieces.environment))  # the rig runs recipes, too
    return Services(folder, pieces, stack, variables)


@cache
def shared_services(folder: Path) -> Services:
    """The services that all experiments of a process share."""
    return own_services(folder, {})


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return ""
