"""What this machine has, told without loading torch."""

from __future__ import annotations

from pathlib import Path


def has_nvidia_gpu() -> bool:
    """Whether there is an NVIDIA GPU with its driver."""
    return any(Path("/dev").glob("nvidia[0-9]*"))
