"""What embedlake starts on a machine is heard on that machine alone, and Ray asks for its token."""

from __future__ import annotations

import ipaddress
import json
import os
import sys
from pathlib import Path

import psutil
import pytest

from embedlake.local.stack import running_stack
from embedlake.settings import Settings
from tests.e2e.conftest import Commands, run_command

pytestmark = pytest.mark.e2e

RAY = """
import json, os
import grpc, ray
from ray.core.generated import gcs_service_pb2 as messages
from ray.core.generated.gcs_service_pb2_grpc import NodeInfoGcsServiceStub
from embedlake.execution.ray_runner import TOKEN_FILE, RayRunner
from embedlake.settings import Settings
from tests.e2e.test_loopback import addresses_of

def answer(token):
    channel = grpc.insecure_channel(ray.get_runtime_context().gcs_address)
    asked = messages.GetClusterIdRequest()
    try:
        NodeInfoGcsServiceStub(channel).GetClusterId(
            asked, timeout=60, metadata=[("authorization", f"Bearer {token}")] if token else []
        )
    except grpc.RpcError as error:
        return error.code().name
    return "OK"

with RayRunner.of(Settings(ray_address="local", ray_cpus=1)):
    ray.get(ray.remote(lambda: 1).remote())
    file = TOKEN_FILE.expanduser()
    print(json.dumps({
        "addresses": addresses_of(os.getpid()),
        "answers": [answer(token) for token in ("", "f" * 64, file.read_text())],
        "mode": oct(file.stat().st_mode & 0o777),
    }))
"""


def addresses_of(pid: int) -> dict[str, str]:
    """Where a process and all that it started listen, with the names of the processes."""
    process = psutil.Process(pid)
    return {
        f"{member.name()} {connection.laddr.port}": connection.laddr.ip
        for member in (process, *process.children(recursive=True))
        for connection in member.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }


def is_of_this_machine(ip: str) -> bool:
    address = ipaddress.ip_address(ip)
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def test_stack_listens_on_loopback_alone(commands: Commands) -> None:
    running = running_stack(Settings(home=commands.home))
    assert running is not None
    addresses = {
        name: ip for each in running.servers for name, ip in addresses_of(each.pid).items()
    }
    assert len(addresses) >= 3  # the Prefect server, and several ports of the S3 server
    assert {name: ip for name, ip in addresses.items() if not is_of_this_machine(ip)} == {}


def test_local_ray_listens_on_loopback_alone_and_asks_for_its_token(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if "RAY" not in name}
    environment |= {"HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    (tmp_path / "start.py").write_text(RAY)
    done = run_command([sys.executable, str(tmp_path / "start.py")], environment)
    assert done.code == 0, done.err
    seen = json.loads(done.out.splitlines()[-1])
    assert len(seen["addresses"]) >= 3  # its head, the node, the worker
    strangers = {name: ip for name, ip in seen["addresses"].items() if not is_of_this_machine(ip)}
    assert strangers == {}
    assert seen["answers"] == ["UNAUTHENTICATED", "UNAUTHENTICATED", "OK"]
    assert seen["mode"] == "0o600"
