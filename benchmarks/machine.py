"""Where and when a result was measured: hardware, versions, command, date, commit."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def about(benchmark: str, packages: Sequence[str]) -> dict[str, Any]:
    """What a reader needs to judge a number and to measure it again."""
    return {
        "benchmark": benchmark,
        "date": date.today().isoformat(),
        "command": f"python -m benchmarks.{benchmark} " + " ".join(map(_shown, sys.argv[1:])),
        "commit": git("rev-parse", "HEAD"),
        "uncommitted_changes": bool(
            git("status", "--short", "embedding_core", "embedlake", "flows")
        ),
        "hardware": hardware(),
        "versions": {"python": platform.python_version()}
        | {package: _version(package) for package in packages},
    }


def _version(package: str) -> str | None:
    """None for a package that is not there."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def hardware() -> dict[str, Any]:
    """The processor and what it can do."""
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.split(":", 1)[1].strip() for line in info.splitlines() if "model name" in line]
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "avx512_bf16": "avx512_bf16" in info,
        "amx_bf16": "amx_bf16" in info,
    }


def git(*arguments: str) -> str:
    """What git says, without the line's end; nothing where there is no git."""
    try:
        done = subprocess.run(
            ["git", *arguments], capture_output=True, text=True, cwd=ROOT, check=False
        )
    except FileNotFoundError:
        return ""
    return done.stdout.strip()


def _shown(argument: str) -> str:
    """A path by its last part: where a file lay when it was measured helps nobody."""
    return Path(argument).name if "/" in argument and Path(argument).exists() else argument
