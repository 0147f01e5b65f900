"""Runs on a Ray cluster of two nodes that others started: separate processes on this machine."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from embedlake.local import processes
from embedlake.local.processes import Server
from tests.e2e.conftest import DONE, FAILED, ROOT, Commands, wait_for
from tests.e2e.recipes import N_FILES, write_files, write_recipe

pytestmark = pytest.mark.e2e

READY = "block forever"
"""What ``ray start --block`` says when the node has joined."""
NODE = ("--block", "--num-cpus=1", "--object-store-memory=80000000", "--disable-usage-stats")
SECONDS = 300.0
OTHER_RAY = """
import ray
ray.__version__ = "2.0.0"
from embedlake.cli.main import main
main()
"""
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
    """Starts another node with these options of ``ray start``, and variables."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A head on a port of its own; each node is stopped by its process id."""
    folder = tmp_path_factory.mktemp("ray-cluster")
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "e" * 64}
    (port,) = processes.free_ports(1)
    address = f"127.0.0.1:{port}"
    started: list[Server] = []

    def start(*options: str, **variables: str) -> Server:
        log = folder / f"node-{len(started)}.log"
        command = [str(Path(sys.executable).parent / "ray"), "start", *NODE, *options]
        node = processes.start(f"ray node {len(started)}", command, token | variables, log)
        started.append(node)
        processes.wait_until(lambda: READY in log.read_text(), node, SECONDS)
        return node

    try:
        start("--head", f"--port={port}", "--include-dashboard=false")
        environment = token | {"EMBEDLAKE_RAY_ADDRESS": address}

        def add(*options: str, **variables: str) -> Server:
            return start(f"--address={address}", *options, **variables)

        yield Cluster(address, environment, add)
    finally:
        processes.stop(*started, patience_seconds=0)


def test_run_waits_aloud_for_a_gpu_has_one_process_on_it_and_leaves_it_free(
    commands: Commands, cluster: Cluster, tmp_path: Path
) -> None:
    write_files(tmp_path)
    path = write_recipe(tmp_path)
    log = tmp_path / "log"
    with log.open("w") as output:
        run = subprocess.Popen(
            [sys.executable, "-c", EMBED_AND_SAY_OFTEN, str(path)],
            cwd=ROOT, stdout=output, stderr=output,
            env={**os.environ, **commands.environment, **cluster.environment},
        )  # fmt: skip
    try:
        waiting = (
            r"asks for 1 GPU and there are 0.*what the cluster of 1 node has now: CPU 1, GPU 0"
        )
        wait_for(lambda: len(re.findall(waiting, log.read_text())) >= 2 or run.poll() is not None)
        assert len(re.findall(waiting, log.read_text())) >= 2, log.read_text()
        cluster.add("--num-gpus=1")
        assert run.wait(SECONDS) == 0, log.read_text()
    finally:
        run.kill()
        run.wait()
    assert f"joining the Ray cluster at {cluster.address}" in log.read_text()
    loading = re.findall(r"worker (\d+) on \S+: loading the model hashing", log.read_text())
    assert len(loading) == 1, "one process has the GPU for all units"
    wait_for(lambda: not psutil.pid_exists(int(loading[0])))  # the GPU is free for the next run


def test_run_on_a_cluster_of_two_nodes_ends_with_zero(
    commands: Commands, cluster: Cluster, tmp_path: Path
) -> None:
    cluster.add()
    write_files(tmp_path)
    command = ("embedlake", "embed", str(write_recipe(tmp_path)), "--json", "--set", "unit_bytes=1")
    run = commands.run(*command, **cluster.environment)
    assert run.code == DONE, run.err
    assert (run.json["embedded"], run.json["rows"]) == (N_FILES, N_FILES)
    assert f"joining the Ray cluster at {cluster.address}" in run.err
    loading = re.findall(r"(worker \d+ on \S+): loading the model hashing", run.err)
    assert 0 < len(loading) == len(set(loading)), "once of each worker"
    assert set(re.findall(r"(worker \d+ on \S+): the model hashing is ready", run.err)) == {
        *loading
    }
    doctor = commands.run("embedlake", "doctor", **cluster.environment)
    assert doctor.code == DONE, doctor.out
    same = f"nodes at {cluster.address}, all with the versions of this process"
    assert same in doctor.out


def ray_check(
    commands: Commands, cluster: Cluster, program: tuple[str, ...] = ("embedlake",), **more: str
) -> dict[str, Any]:
    """What ``doctor`` says of Ray."""
    answer = commands.run(*program, "doctor", "--json", **cluster.environment, **more)
    (check,) = (check for check in answer.json["checks"] if check["name"] == "ray")
    assert answer.code == (DONE if check["ok"] else FAILED)
    return dict(check)


def test_doctor_says_what_a_cluster_lacks_and_which_node_has_other_versions(
    commands: Commands, cluster: Cluster, tmp_path: Path
) -> None:
    lacking = ray_check(commands, cluster, EMBEDLAKE_RESOURCES__GPUS_PER_TASK="99")
    assert "an embed task asks for 99 GPUs" in lacking["detail"] and not lacking["ok"]

    other_ray = ("python", "-c", OTHER_RAY)
    refused = ray_check(commands, cluster, other_ray)
    assert "Ray: 2.0.0" in refused["detail"] and "install the Ray" in refused["detail"]

    info = tmp_path / "pylance-0.0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pylance\nVersion: 0.0.1\n")
    cluster.add(PYTHONPATH=str(tmp_path))
    differs = ray_check(commands, cluster)
    assert "has pylance 0.0.1 and this process" in differs["detail"] and not differs["ok"]
    assert differs["detail"].count("node ") == 1 + differs["detail"].count("on every node")
