"""The folders that a run writes to beside its lake: whether they can be written and have room."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from embedding_core.errors import SetupError
from embedlake.settings import Settings, prefect_home, temporary_folder

LEAST_FREE_BYTES = 100 * 1024 * 1024
"""Prefect's database and logs, and a session of Ray, take tens of megabytes."""
PROBE_BYTES = 4096
MIB = 1024 * 1024


def check_folders(settings: Settings) -> str:
    """How much is free in each. Raises ``SetupError``, one line with every folder that is full or
    cannot be written."""
    paths = {
        "TMPDIR": temporary_folder(),
        "EMBEDLAKE_HOME": settings.home,
        "PREFECT_HOME": prefect_home(),
    }
    problems = [
        f"{variable} ({path}) {problem}"
        for variable, path in paths.items()
        if (problem := _problem(path)) is not None
    ]
    if problems:
        raise SetupError(
            f"{'; '.join(problems)}: make room there, or set {_listed(problems)} to a folder that "
            f"can be written and has {LEAST_FREE_BYTES // MIB} MiB free"
        )
    return ", ".join(
        f"{variable} {path}: {_free_bytes(path) // MIB:,} MiB free"
        for variable, path in paths.items()
    )


def _listed(problems: list[str]) -> str:
    return " and ".join(problem.partition(" ")[0] for problem in problems)


def _problem(path: Path) -> str | None:
    """What stands in the way of writing there; leaves nothing behind."""
    try:
        with tempfile.TemporaryFile(dir=_existing(path)) as probe:
            probe.write(os.urandom(PROBE_BYTES))
            probe.flush()
            os.fsync(probe.fileno())
        free_bytes = _free_bytes(path)
    except OSError as error:
        return f"cannot be written: {error.strerror or error}"
    if free_bytes < LEAST_FREE_BYTES:
        return f"has {free_bytes / MIB:.1f} MiB free"
    return None


def _free_bytes(path: Path) -> int:
    return shutil.disk_usage(_existing(path)).free


def _existing(path: Path) -> Path:
    """The folder itself, or the nearest above it that is there: that is where it will be made."""
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.exists())


def export_staging(settings: Settings) -> Path:
    """Where exports to a hub are until they are uploaded."""
    return settings.home / "exports"
