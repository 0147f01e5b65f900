"""Servers of our own: found again by identity, stopped with their children."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import fsspec
import psutil
import pytest

from embedding_core.errors import SetupError
from embedlake.local import processes, stack
from embedlake.local.ports import chosen_port, usual_ports
from embedlake.local.processes import Server
from embedlake.settings import Settings

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]
WITH_A_CHILD = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""

ENDS_AFTER = """
import pathlib, signal, sys, time
here, there = map(pathlib.Path, sys.argv[1:])
def end(*_):
    here.touch()
    while not there.exists():
        time.sleep(0.01)
    print("ended", flush=True)
    sys.exit()
signal.signal(signal.SIGTERM, end)
print("ready", flush=True)
while True:
    signal.pause()
"""
"""A server that ends when it was asked to and another was, too."""


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """A process that is none of ours."""
    with subprocess.Popen(SLEEP) as process:
        yield process
        process.kill()


def stale(process: subprocess.Popen[bytes], log: Path) -> Server:
    """A server that ended, and whose process id another process has now."""
    began = psutil.Process(process.pid).create_time()
    return Server("prefect server", process.pid, began - 3600.0, "http://127.0.0.1:9/api", str(log))


def wait_for_line(log: Path) -> str:
    deadline = time.monotonic() + 60
    while not log.read_text().endswith("\n") and time.monotonic() < deadline:
        time.sleep(0.01)
    return log.read_text().strip()


def test_is_running_same_process_id_of_another_process_is_not_ours(
    bystander: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    server = stale(bystander, tmp_path / "log")
    assert not processes.is_running(server)
    processes.stop(server)
    assert bystander.poll() is None
    assert processes.is_running(replace(server, started_at=server.started_at + 3600.0))


def test_up_interrupted_while_the_server_starts_leaves_nothing_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Server] = []

    def interrupt(_is_ready: object, server: Server, _seconds: float) -> None:
        started.append(server)
        raise KeyboardInterrupt

    monkeypatch.setattr(processes, "wait_until", interrupt)
    with pytest.raises(KeyboardInterrupt):
        stack.up(Settings(home=tmp_path))
    (server,) = started
    assert not processes.is_running(server)
    assert stack.running_stack(Settings(home=tmp_path)) is None


def test_up_in_a_home_that_cannot_be_written_is_a_setup_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SetupError, match="EMBEDLAKE_HOME"):
        stack.up(Settings(home=tmp_path / "file" / "home"))


def test_up_while_another_stack_runs_returns_it_or_says_what_differs(
    bystander: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    settings = Settings(home=tmp_path)
    began = psutil.Process(bystander.pid).create_time()
    url = "http://127.0.0.1:4200/api"
    server = Server("prefect server", bystander.pid, began, url, "log")
    (tmp_path / "stack.json").write_text(json.dumps([asdict(server)]))
    assert stack.up(settings) == stack.up(settings, port=4200) == stack.Stack((server,))
    with pytest.raises(SetupError, match=r"not on port 4300.*embedlake down"):
        stack.up(settings, port=4300)
    with pytest.raises(SetupError, match=r"without an S3 server.*embedlake down"):
        stack.up(settings, with_s3=True)
    assert stack.down(settings) == [server] and not processes.is_running(server)


def test_down_with_a_stale_state_file_stops_nothing(
    bystander: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    settings = Settings(home=tmp_path)
    state = [asdict(stale(bystander, tmp_path / "log"))]
    (tmp_path / "stack.json").write_text(json.dumps(state))
    assert stack.running_stack(settings) is None
    assert stack.down(settings) == []
    assert bystander.poll() is None
    assert not (tmp_path / "stack.json").exists()


@pytest.mark.slow
def test_stop_ends_a_server_and_what_it_started(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "server.log"
    server = processes.start("server", [sys.executable, "-c", WITH_A_CHILD], {}, log)
    child = psutil.Process(int(wait_for_line(log)))
    assert processes.is_running(server) and child.is_running()
    processes.stop(server)
    assert not processes.is_running(server)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
    processes.stop(server)  # once more is fine


@pytest.mark.slow
def test_stop_asks_all_servers_before_it_waits_for_any(tmp_path: Path) -> None:
    asked = [str(tmp_path / "first"), str(tmp_path / "second")]
    servers = [
        processes.start(name, [sys.executable, "-c", ENDS_AFTER, *paths], {}, tmp_path / name)
        for name, paths in (("a.log", asked), ("b.log", asked[::-1]))
    ]
    logs = [Path(server.log) for server in servers]
    assert [wait_for_line(log) for log in logs] == ["ready", "ready"]
    processes.stop(*servers, patience_seconds=60.0)
    assert [log.read_text().split() for log in logs] == [["ready", "ended"]] * 2


def test_start_gives_the_environment_and_a_session_of_its_own(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    code = "import os; print(os.environ['WORD'], os.getsid(0) == os.getpid(), flush=True)"
    server = processes.start("server", [sys.executable, "-c", code], {"WORD": "hello"}, log)
    try:
        assert wait_for_line(log) == "hello True"
    finally:
        processes.stop(server)


def test_wait_until_server_that_ends_shows_the_end_of_its_log(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('the database is locked')"]
    server = processes.start("server", command, {}, tmp_path / "server.log")
    with pytest.raises(SetupError, match="the database is locked"):
        processes.wait_until(lambda: False, server, 30)
    processes.stop(server)


def test_free_ports_are_different_and_free() -> None:
    ports = processes.free_ports(20)
    assert len(set(ports)) == 20
    assert all(map(processes.is_port_free, ports))


def test_free_ports_are_none_that_the_system_gives_to_others_meanwhile() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert listener.getsockname()[1] not in processes.DRAWN_PORTS
    assert set(processes.free_ports(20)) <= {*processes.DRAWN_PORTS}


# The same ports every time


def test_usual_ports_are_those_of_the_last_time(tmp_path: Path) -> None:
    said: list[str] = []
    first = usual_ports(tmp_path, ["a", "b"], said.append)
    assert len(set(first.values())) == 2
    assert usual_ports(tmp_path, ["b", "a", "c"], said.append).items() > first.items()
    assert said == []


def test_usual_port_that_is_in_use_is_said_and_another_is_usual_from_then_on(
    tmp_path: Path,
) -> None:
    said: list[str] = []
    first = usual_ports(tmp_path, ["a", "b"], said.append)
    with socket.create_server(("127.0.0.1", first["a"])):
        second = usual_ports(tmp_path, ["a", "b"], said.append)
    assert second["a"] != first["a"] and second["b"] == first["b"]
    assert said == [f"a: port {first['a']} is in use, taking {second['a']}"]
    assert usual_ports(tmp_path, ["a", "b"], said.append) == second


def test_chosen_port_is_the_usual_one_from_then_on_unless_it_is_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(SetupError, match=f"{port}.*--port"):
            chosen_port(tmp_path, "a", port)
    assert chosen_port(tmp_path, "a", port) == port
    assert usual_ports(tmp_path, ["a"], pytest.fail) == {"a": port}


def test_ports_that_cannot_be_read_say_which_file_to_remove(tmp_path: Path) -> None:
    (tmp_path / "ports.json").write_text("[")
    with pytest.raises(SetupError, match=r"ports\.json.*remove it"):
        usual_ports(tmp_path, ["a"], pytest.fail)


@pytest.mark.server
def test_s3_server_has_its_bucket_at_its_usual_port(tmp_path: Path) -> None:
    port = usual_ports(tmp_path, ["s3.port"], pytest.fail)["s3.port"]
    server = stack.start_s3(tmp_path)
    try:
        assert server.url == f"http://127.0.0.1:{port}"
        key = stack.s3_environment(tmp_path, server.url)
        store = fsspec.filesystem(
            "s3", key=key["AWS_ACCESS_KEY_ID"], secret=key["AWS_SECRET_ACCESS_KEY"],
            client_kwargs={"endpoint_url": server.url, "region_name": key["AWS_REGION"]},
        )  # fmt: skip
        assert [name.strip("/") for name in store.ls("")] == [stack.BUCKET]
    finally:
        processes.stop(server, patience_seconds=0)


# Servers that end with who started them

FROM_A_THREAD = """
import sys, threading, time
from pathlib import Path
from embedlake.local import processes
def start():
    log = Path(sys.argv[1])
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    processes.start("server", [sys.executable, "-c", code], {}, log, outlives=False)
thread = threading.Thread(target=start)
thread.start()
thread.join()
print("started", flush=True)
time.sleep(600)
"""


@pytest.mark.slow
def test_server_of_a_process_that_is_killed_ends_with_it_and_not_with_a_thread(
    tmp_path: Path,
) -> None:
    log = tmp_path / "server.log"
    with subprocess.Popen(
        [sys.executable, "-c", FROM_A_THREAD, str(log)], stdout=subprocess.PIPE
    ) as starter:
        assert starter.stdout is not None and starter.stdout.readline() == b"started\n"
        server = psutil.Process(int(wait_for_line(log)))
        guard = server.parent()
        assert guard is not None and server.is_running()  # though its thread has ended
        starter.kill()
        _, alive = psutil.wait_procs([server, guard], timeout=60)
    assert alive == []


def test_guarded_server_that_ends_takes_its_guard_along(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "print('done')"]
    server = processes.start("server", command, {}, tmp_path / "log", outlives=False)
    psutil.wait_procs([psutil.Process(server.pid)], timeout=60)
    assert not processes.is_running(server)
    processes.stop(server)


def greet_once(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.recv(4096)
        connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9/", "http://127.0.0.1:port/", "127.0.0.1:80", "words", ""]
)
def test_answers_is_false_for_what_does_not_answer_or_is_no_url(url: str) -> None:
    assert not processes.answers(url)


def test_answers_is_false_for_a_server_that_does_not_speak_http() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        greeter = threading.Thread(target=greet_once, args=(listener,))
        greeter.start()
        assert not processes.answers(f"http://127.0.0.1:{port}/")
        greeter.join()
