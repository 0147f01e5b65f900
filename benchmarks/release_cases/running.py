"""Runs of the command line against a real Prefect server, for the cases."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from embedlake.local import stack
from embedlake.settings import Settings


@contextmanager
def prefect_api(home: Path) -> Iterator[dict[str, str]]:
    """The environment of commands that use a server which runs for the block."""
    settings = Settings(home=home)
    running = stack.up(settings)
    try:
        yield {**os.environ, "PREFECT_API_URL": running.api_url, "EMBEDLAKE_HOME": str(home)}
    finally:
        stack.down(settings)


def started(environment: dict[str, str], *command: str) -> subprocess.Popen[str]:
    """``embedlake`` with these arguments, going on by itself."""
    program = Path(sys.executable).parent / "embedlake"
    return subprocess.Popen(
        [str(program), *command, "--json"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def answer(process: subprocess.Popen[str]) -> tuple[int, dict[str, Any]]:
    """Exit code and JSON of a command when it has ended."""
    out, _ = process.communicate()
    return process.returncode, json.loads(out)


def embedlake(environment: dict[str, str], *command: str) -> tuple[int, dict[str, Any]]:
    """Exit code and JSON of a command."""
    return answer(started(environment, *command))
