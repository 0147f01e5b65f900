"""What this process has of the machine's processor. Loads no torch."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Literal

CPU_INFO = Path("/proc/cpuinfo")
BF16_INSTRUCTIONS = frozenset({"avx512_bf16", "amx_bf16"})
"""Linux's names of x86 instructions that multiply bf16: with them bf16 matrices run 2 to 8 times as
fast as fp32, without them slower."""

CGROUP = Path("/sys/fs/cgroup")


@cache
def cores_allowed(cgroup: Path = CGROUP) -> int | None:
    """Cores whose time the container may use, rounded up; None where nothing limits it.

    A process with more threads than that is stopped again and again, while some of them wait for
    the others. Documented in Linux's ``cgroup-v2.rst`` (``cpu.max``) and ``sched-bwc.rst``.
    """
    try:
        if (limit := cgroup / "cpu.max").exists():
            quota, period = limit.read_text().split()
        else:
            quota = (cgroup / "cpu/cpu.cfs_quota_us").read_text().strip()
            period = (cgroup / "cpu/cpu.cfs_period_us").read_text().strip()
        cores = math.ceil(int(quota) / int(period))
    except (OSError, ValueError):  # no control group, or "max"
        return None
    return cores if cores > 0 else None


@cache
def faster_dtype(cpu_info: Path = CPU_INFO) -> Literal["bf16", "fp32"]:
    """The faster arithmetic for matrices: a property of the processor, whoever else uses it.

    fp32 where Linux does not tell; other systems and processors were not measured.
    """
    try:
        lines = cpu_info.read_text().splitlines()
    except OSError:
        return "fp32"
    flags = next((line for line in lines if line.startswith("flags")), "")
    return "bf16" if BF16_INSTRUCTIONS & set(flags.split()) else "fp32"
