"""The device that a model runs on: its choice, copies to it, and its free memory."""

from __future__ import annotations

import os
from typing import Any

import numpy.typing as npt
import torch

from embedding_core.errors import ModelError

AMPERE = (8, 0)
"""First CUDA architecture that computes in bf16."""

OUT_OF_MEMORY_WORDS = (
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",
)
"""Errors of a full card beside torch's own: of Triton loading a kernel, of cuBLAS making its
workspace."""


ALLOCATOR_VARIABLES = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
"""What torch reads at its first allocation on a GPU: the name since torch 2.9, and the older."""


def choose_device(name: str) -> torch.device:
    """The torch device for auto, cpu, cuda or cuda:<n>."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cpu":
        return torch.device("cpu")
    number = name.removeprefix("cuda").removeprefix(":")
    if not name.startswith("cuda") or not (name == "cuda" or number.isdigit()):
        raise ModelError(f"unknown device {name!r}; use auto, cpu, cuda or cuda:<n>")
    n_devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(number or 0) >= n_devices:
        raise ModelError(
            f"device {name!r} asked for, but torch sees {n_devices} CUDA devices here; use "
            "device auto or cpu, or install a CUDA build of torch and a driver"
        )
    _let_segments_grow()
    return torch.device(name)


def _let_segments_grow() -> None:
    """Have torch extend its blocks of GPU memory; a setting that is there stays.

    Each batch has another number of tokens. Blocks of fixed size would be left with gaps that no
    batch fits in.
    """
    if not any(variable in os.environ for variable in ALLOCATOR_VARIABLES):
        os.environ[ALLOCATOR_VARIABLES[0]] = "expandable_segments:True"


def half_type(device: torch.device) -> torch.dtype:
    """bf16 on GPUs that compute in it, fp16 on older ones.

    Both are as fast. Activations of many models are too large for fp16 on some texts: those rows
    would be computed twice.
    """
    return torch.bfloat16 if torch.cuda.get_device_capability(device) >= AMPERE else torch.float16


def to_device(values: npt.NDArray[Any], device: torch.device) -> torch.Tensor:
    """Copy values to a device; on CUDA the copy is only queued, and nothing waits for it."""
    tensor = torch.from_numpy(values)
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def free_bytes(device: torch.device) -> int:
    """Memory of a GPU that a model may still take, what torch keeps in reserve included."""
    free, _ = torch.cuda.mem_get_info(device)
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return free + unused


def free_unused(device: torch.device) -> None:
    """Give memory that torch keeps in reserve back to the device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the device's memory is full."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(
        words in str(error) for words in OUT_OF_MEMORY_WORDS
    )
