"""What only changes speed: never part of a recipe, never part of any digest."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator

from embedding_core.recipe.explain import explain
from embedding_core.recipe.section import Section


class Resources(Section):
    """What only changes speed: never hashed, free to differ from run to run."""

    device: str = "auto"
    """``auto``, ``cpu``, ``cuda`` or ``cuda:N``."""
    batch_tokens: int | None = Field(default=None, ge=1)
    """Tokens in one forward pass, or in one request to a server; default: chosen for the device."""
    cpu_dtype: Literal["auto", "bf16", "fp32"] = "auto"
    """What ``model.dtype: auto`` is on CPUs. ``auto``: the faster type of the processor that a run
    starts on; all tasks of the run use it."""
    unit: Literal["bytes", "file"] = "bytes"
    """What a task works on: about ``unit_bytes``, or a file, whatever its size."""
    unit_bytes: int = Field(default=4 * 1024 * 1024, ge=1)
    """Small files are packed, and huge ones sliced, to about this many bytes per task, unless
    ``unit`` is ``file``."""
    part_rows: int = Field(default=65_536, ge=1)
    """Within a long unit, rows are saved in parts of about this many: a retry redoes one part."""
    units_per_commit: int = Field(default=16, ge=1)
    """Work units committed together at least; as many as there are workers, where those are more.
    Twice as many are in flight at most."""
    staged_bytes: int = Field(default=32 * 1024**3, ge=1)
    """Bytes of source that units in flight have together at most, and so about what is staged; a
    larger unit goes alone."""
    seconds_per_commit: float = Field(default=60.0, gt=0)
    """Units that are ready are committed after this time, even when they are fewer."""
    at_once: int = Field(default=32, ge=1)
    """Requests to the servers of an endpoint that are under way at once, over the whole run; fewer
    while more would bring nothing."""
    gpus_per_task: float | None = Field(default=None, ge=0)
    """GPUs Ray reserves for an embed task; 0 runs it on CPUs; default: 1 when Ray is local, the
    machine has an NVIDIA GPU and ``device`` is not ``cpu``, else 0. A task that asks a server gets
    none."""
    cpus_per_task: float | None = Field(default=None, gt=0)
    """CPUs Ray reserves for an embed task; default: 1 with a GPU or a server, else all of a local
    machine."""

    @field_validator("device")
    @classmethod
    def _known_device(cls, device: str) -> str:
        if re.fullmatch(r"auto|cpu|cuda(:\d+)?", device) is None:
            raise ValueError(f"{device!r} is no device; use auto, cpu, cuda or cuda:N")
        return device

    @property
    def bytes_per_unit(self) -> int | None:
        """What files are packed and sliced to; None for a file per task."""
        return self.unit_bytes if self.unit == "bytes" else None

    def updated(self, changes: Mapping[str, Any]) -> Resources:
        """These resources with some values changed. Raises ``UsageError`` for a wrong one."""
        try:
            return Resources.model_validate(self.model_dump() | dict(changes))
        except ValidationError as error:
            raise explain(error, "resources", Resources, action="resources") from error
