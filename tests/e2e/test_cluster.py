"""Runs on a Ray cluster of two nodes that others started: separate processes on this machine."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from embedlake.local import processes
from embedlake.local.processes import Server
from tests.e2e.conftest import DONE, ROOT, Commands
from tests.e2e.recipes import write_recipe, write_ten_files

pytestmark = pytest.mark.e2e

READY = "block forever"
"""What ``ray start --block`` says when the node has joined."""
NODE = ("--block", "--num-cpus=1", "--object-store-memory=80000000", "--disable-usage-stats")
SECONDS = 120.0
EMBED_AND_SAY_OFTEN = """
import sys
from embedlake.flows.embed import embed
from embedlake.execution.runner import Runner
state = embed.with_options(task_runner=Runner(waiting_seconds=0.1))(
    sys.argv[1], {"gpus_per_task": 1, "unit_bytes": 1}, return_state=True)
sys.exit(0 if state.is_completed() else str(state))
"""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster with one node, its head."""

    address: str
    environment: dict[str, str]
    """What its nodes and whoever joins them share."""
    add: Callable[..., Server]
    """Starts another node with these options of ``ray start``."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A head on a port of its own; each node is stopped by its process id."""
    folder = tmp_path_factory.mktemp("ray-cluster")
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "e" * 64}
    (port,) = processes.free_ports(1)
    address = f"127.0.0.1:{port}"
    started: list[Server] = []

    def start(*options: str) -> Server:
        log = folder / f"node-{len(started)}.log"
        command = [str(Path(sys.executable).parent / "ray"), "start", *NODE, *options]
        node = processes.start(f"ray node {len(started)}", command, token, log)
        started.append(node)
        processes.wait_until(lambda: READY in log.read_text(), node, SECONDS)
        return node

    try:
        start("--head", f"--port={port}", "--include-dashboard=false")
        environment = token | {"EMBEDLAKE_RAY_ADDRESS": address}
        yield Cluster(address, environment, lambda *more: start(f"--address={address}", *more))
    finally:
        for node in reversed(started):
            processes.stop(node)


def test_run_that_asks_a_cluster_for_a_gpu_says_what_it_waits_for_until_a_node_has_one(
    commands: Commands, cluster: Cluster, tmp_path: Path
) -> None:
    write_ten_files(tmp_path)
    path = write_recipe(tmp_path)
    log = tmp_path / "log"
    with log.open("w") as output:
        run = subprocess.Popen(
            [sys.executable, "-c", EMBED_AND_SAY_OFTEN, str(path)],
            cwd=ROOT, stdout=output, stderr=output,
            env={**os.environ, **commands.environment, **cluster.environment},
        )  # fmt: skip
    try:
        waiting = r"asks for 1 GPUs and there are 0.*what its 1 nodes have now: CPU 1, GPU 0"
        deadline = time.monotonic() + SECONDS
        while len(re.findall(waiting, log.read_text())) < 2 and time.monotonic() < deadline:
            assert run.poll() is None, log.read_text()
            time.sleep(0.1)
        assert len(re.findall(waiting, log.read_text())) >= 2, log.read_text()
        cluster.add("--num-gpus=1")
        assert run.wait(SECONDS) == 0, log.read_text()
    finally:
        run.kill()
        run.wait()
    assert f"joining the Ray cluster at {cluster.address}" in log.read_text()


def test_run_on_a_cluster_of_two_nodes_ends_with_zero(
    commands: Commands, cluster: Cluster, tmp_path: Path
) -> None:
    cluster.add()
    write_ten_files(tmp_path)
    command = ("embedlake", "embed", str(write_recipe(tmp_path)), "--json", "--set", "unit_bytes=1")
    run = commands.run(*command, **cluster.environment)
    assert run.code == DONE, run.err
    assert (run.json["embedded"], run.json["rows"]) == (10, 10)
    assert f"joining the Ray cluster at {cluster.address}" in run.err
    loading = re.findall(r"(worker \d+ on \S+): loading the model hashing", run.err)
    assert 0 < len(loading) == len(set(loading)), "once of each worker"
    assert set(re.findall(r"(worker \d+ on \S+): the model hashing is ready", run.err)) == {
        *loading
    }
    doctor = commands.run("embedlake", "doctor", **cluster.environment)
    assert f"something listens at {cluster.address}" in doctor.out
