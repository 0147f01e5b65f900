"""The GPUs of this machine, counted without loading torch."""

from __future__ import annotations

import os
from pathlib import Path


def n_nvidia_gpus() -> int:
    """NVIDIA GPUs with a driver on this machine; 0 where ``CUDA_VISIBLE_DEVICES`` is empty."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        return 0
    return len(list(Path("/dev").glob("nvidia[0-9]*")))
