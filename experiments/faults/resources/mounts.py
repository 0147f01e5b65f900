"""Disks that only this process and its children see. Linux alone."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.machine import ROOT

NEW_MOUNTS, NEW_USER = 0x0002_0000, 0x1000_0000
"""``CLONE_NEWNS`` and ``CLONE_NEWUSER`` of ``unshare``."""
READ_ONLY, REMOUNT, PRIVATE_BELOW = 1, 32, (1 << 18) | (1 << 14)
"""Flags of ``mount``: MS_RDONLY, MS_REMOUNT, and MS_PRIVATE with MS_REC."""


def missing() -> str | None:
    """Why nobody can have such disks here; None where one can."""
    program = f"from {__name__} import begin_own; begin_own()"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return None if done.returncode == 0 else done.stderr.strip().splitlines()[-1]


def begin_own() -> None:
    """Let this process mount what no other process sees, and what goes with it."""
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    if libc.unshare(NEW_MOUNTS):  # only root may, and not in every container
        if libc.unshare(NEW_MOUNTS | NEW_USER):
            raise OSError(ctypes.get_errno(), "neither root nor user namespaces: no mounts")
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    _mount(Path("/"), PRIVATE_BELOW, "")


def disk_in_memory(folder: Path, n_bytes: int, flags: int = 0) -> None:
    """Mount an empty disk at a folder; with ``REMOUNT``, change the one that is there."""
    _mount(folder, flags, f"size={n_bytes}")


@contextmanager
def read_only(folder: Path, n_bytes: int) -> Iterator[None]:
    """Let nobody write to the disk for as long as the context lasts."""
    disk_in_memory(folder, n_bytes, REMOUNT | READ_ONLY)
    try:
        yield
    finally:
        disk_in_memory(folder, n_bytes, REMOUNT)


def _mount(folder: Path, flags: int, options: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    where, kind = os.fsencode(folder), b"tmpfs"
    if libc.mount(kind, where, kind, ctypes.c_ulong(flags), options.encode()):
        raise OSError(ctypes.get_errno(), f"cannot mount a disk at {folder}")
