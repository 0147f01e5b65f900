"""Lines that tasks on Ray leave for their flow, through Ray's key-value store."""

from __future__ import annotations

import os
import socket
import time

from ray.experimental.internal_kv import (
    _internal_kv_del,
    _internal_kv_get,
    _internal_kv_list,
    _internal_kv_put,
)

LINES = b"embedlake-lines"
"""Namespace of Ray's key-value store in which tasks leave lines for their flow."""


def tell(run_id: str, line: str) -> None:
    """Leave a line for the flow of a task that runs on Ray: what a worker prints stays on its node,
    and what it logs goes to Prefect alone. The line says which worker it is of."""
    worker = f"worker {os.getpid()} on {socket.gethostname()}"
    key = f"{run_id}/{time.time_ns():020}/{worker}"
    _internal_kv_put(key.encode(), f"{worker}: {line}".encode(), namespace=LINES)


def told(run_id: str) -> list[str]:
    """Lines that tasks of a flow run left, in the order of their time, each once."""
    lines = []
    for key in sorted(_internal_kv_list(f"{run_id}/".encode(), namespace=LINES)):
        lines.append((_internal_kv_get(key, namespace=LINES) or b"").decode())
        _internal_kv_del(key, namespace=LINES)
    return lines
