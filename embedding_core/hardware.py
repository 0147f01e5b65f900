"""What this machine has, told without loading torch."""

from __future__ import annotations

from pathlib import Path


def n_nvidia_gpus() -> int:
    """NVIDIA GPUs with a driver on this machine."""
    return len(list(Path("/dev").glob("nvidia[0-9]*")))
