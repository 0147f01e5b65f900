"""This machine: its processors, its folders, its clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from embedding_core.errors import SetupError
from embedding_core.gpus import n_nvidia_gpus
from embedding_core.plurals import counted
from embedlake.settings import Settings

MOST_SKEW_SECONDS = 30.0
"""S3 refuses what was signed 15 minutes off. Prefect orders heartbeats, 30 seconds apart, by the
clocks of those who send them."""


def check_processor(settings: Settings, n_gpus: int | None = None) -> str:
    """The device that a run gets. ``n_gpus``: NVIDIA GPUs of this machine, counted by default."""
    import torch

    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}"
    n_gpus = n_nvidia_gpus() if n_gpus is None else n_gpus
    if n_gpus and settings.resources.device != "cpu":
        build = f"is built for CUDA {torch.version.cuda}" if torch.version.cuda else "has no CUDA"
        raise SetupError(
            f"this machine has {n_gpus} NVIDIA GPUs and torch {torch.__version__}, which {build}, "
            "uses none; install torch's CUDA build and a driver that it takes (`nvidia-smi` names "
            "what the driver takes), or set EMBEDLAKE_RESOURCES__DEVICE=cpu"
        )
    return f"CPU, {counted(torch.get_num_threads(), 'thread')}; no CUDA device"


def check_folders(settings: Settings) -> str:
    """Whether folders beside the lake can be written and have room."""
    from embedlake.local import folders

    return folders.check_folders(settings)


def check_clock(
    dates: Mapping[str, Callable[[], str | None]], now: Callable[[], datetime] | None = None
) -> str:
    """Hold this machine's clock against the ``Date`` of the servers that a run talks to.

    ``dates`` asks each for its date; None where it does not answer, which other checks tell.
    """
    compared = []
    for name, ask in dates.items():
        date = ask()
        if date is None:
            continue
        here = (now or _utc)()
        skew_seconds = (here - parsedate_to_datetime(date)).total_seconds()
        if abs(skew_seconds) > MOST_SKEW_SECONDS:
            direction = "ahead of" if skew_seconds > 0 else "behind"
            raise SetupError(
                f"this machine's clock is {abs(skew_seconds):,.0f} s {direction} that of {name}; "
                f"more than {MOST_SKEW_SECONDS:g} s upset signatures, schedules and heartbeats: "
                "set both by NTP (`timedatectl set-ntp true`)"
            )
        compared.append(name)
    if not compared:
        return "no server to compare it with"
    return f"within {MOST_SKEW_SECONDS:g} s of {' and '.join(compared)}"


def _utc() -> datetime:
    return datetime.now(UTC)
