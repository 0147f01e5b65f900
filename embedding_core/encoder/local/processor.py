"""What this machine's processor computes in without emulation. Loads no torch."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

CPU_INFO = Path("/proc/cpuinfo")
BF16_INSTRUCTIONS = frozenset({"avx512_bf16", "amx_bf16"})
"""Linux's names of x86 instructions that multiply bf16: with them bf16 matrices run 2 to 8 times as
fast as fp32, without them slower."""


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
