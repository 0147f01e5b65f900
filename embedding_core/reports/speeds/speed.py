"""The report of a model's speed on this machine. Its record loads torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from embedding_core.encoder.bench.measure import ModelSpeed
from embedding_core.reports.report import Report


@dataclass(frozen=True)
class SpeedView(Report):
    """A measured speed in words, workload by workload."""

    record: ClassVar[type] = ModelSpeed
    speed: ModelSpeed
    cost_per_million_tokens: float | None = None
    """None without a price."""

    def summary(self) -> str:
        """The token budget to set."""
        return (
            f"fastest on the mix: EMBEDLAKE_RESOURCES__BATCH_TOKENS={self.speed.batch_tokens}, "
            f"{self.speed.tokens_per_second:,.0f} tokens/s, peak memory "
            f"{self.speed.peak_memory_bytes / 2**20:,.0f} MiB"
        )

    def lines(self) -> list[str]:
        speed = self.speed
        lines = [
            f"{speed.device}, {speed.dtype}: matrices reach "
            f"{speed.matrix_flops_per_second / 1e9:,.0f} GFLOP/s here",
            "tokens per text   token budget   tokens/s   share of the matrix rate",
        ]
        lines += [
            f"{workload.name:>15}   {workload.batch_tokens:>12,}   "
            f"{workload.tokens_per_second:>8,.0f}   {workload.share_of_limit:>5.0%}"
            for workload in speed.workloads
        ]
        lines.append(self.summary())
        if self.cost_per_million_tokens is not None:
            lines.append(f"a million tokens cost about {self.cost_per_million_tokens:,.4f}")
        return lines

    def data(self) -> dict[str, Any]:
        return asdict(self.speed) | {"cost_per_million_tokens": self.cost_per_million_tokens}


REPORT = SpeedView
