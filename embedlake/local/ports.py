"""The ports of the local stack: the same from one start to the next, so that links stay good."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from embedding_core.errors import SetupError
from embedding_core.store import storage
from embedding_core.store.storage import StorageSpec
from embedlake.local.processes import LOOPBACK, free_ports, is_port_free

Say = Callable[[str], object]
"""Takes one line for people."""


def chosen_port(home: Path, name: str, port: int) -> int:
    """A port that someone chose, remembered. Raises ``SetupError`` when it is in use."""
    if not is_port_free(port):
        raise SetupError(
            f"port {port} on {LOOPBACK} is in use; choose another with --port, or leave it out to "
            "have a free one chosen"
        )
    _remember(home, {name: port})
    return port


def usual_ports(home: Path, names: Sequence[str], say: Say) -> dict[str, int]:
    """The port that each of these had the last time, as far as it is free; else another, which is
    remembered from now on."""
    usual = {name: port for name, port in _remembered(home).items() if name in names}
    ports = {name: port for name, port in usual.items() if is_port_free(port)}
    others = iter(set(free_ports(len(names))) - set(ports.values()))
    for name in names:
        if name not in ports:
            ports[name] = next(others)
            if name in usual:
                say(f"{name}: port {usual[name]} is in use, taking {ports[name]}")
    _remember(home, ports)
    return ports


def _remember(home: Path, ports: dict[str, int]) -> None:
    content = json.dumps(_remembered(home) | ports, indent=2).encode()
    try:
        storage.write_bytes(str(_file(home)), content, StorageSpec())
    except OSError as error:
        raise SetupError(
            f"cannot write {_file(home)} ({error}); set EMBEDLAKE_HOME to a folder you may write"
        ) from error


def _remembered(home: Path) -> dict[str, int]:
    try:
        return {name: int(port) for name, port in json.loads(_file(home).read_bytes()).items()}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise SetupError(f"cannot read the ports in {_file(home)} ({error}); remove it") from error


def _file(home: Path) -> Path:
    return home / "ports.json"
