"""The report of engines beside each other: how fast they are from this machine, what they cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from embedding_core.encoder.bench.rates import EngineComparison, EngineRates
from embedding_core.reports.report import Report

MILLION = 1_000_000


def unpriced(_seconds: float) -> None:
    """No cost, as without a price."""


@dataclass(frozen=True)
class EngineRatesView(Report):
    """A line per engine, the recipe's first."""

    record: ClassVar[type] = EngineComparison
    comparison: EngineComparison
    cost: Callable[[float], float | None] = unpriced
    """What so many seconds cost; None without a price."""

    def summary(self) -> str:
        """The fastest engine."""
        best = max(self.comparison.engines, key=lambda engine: engine.tokens_per_second)
        return f"fastest on the mix: {best.engine}, {best.tokens_per_second:,.0f} tokens/s"

    def lines(self) -> list[str]:
        engines = self.comparison.engines
        width = max(len(engine.engine) for engine in engines)
        names = "   ".join(f"{rate.workload:>8}" for rate in engines[0].rates)
        lines = [f"{'tokens/s by tokens per text':<{width}}   {names}   cost of a million tokens"]
        for engine in engines:
            rates = "   ".join(f"{rate.tokens_per_second:>8,.0f}" for rate in engine.rates)
            cost = self._cost_per_million(engine)
            shown = "no price is set" if cost is None else f"{cost:,.4f}"
            lines.append(f"{engine.engine:<{width}}   {rates}   {shown}")
        return [*lines, self.summary()]

    def data(self) -> dict[str, Any]:
        engines = [
            asdict(engine)
            | {
                "tokens_per_second": engine.tokens_per_second,
                "cost_per_million_tokens": self._cost_per_million(engine),
            }
            for engine in self.comparison.engines
        ]
        return {"engines": engines}

    def _cost_per_million(self, engine: EngineRates) -> float | None:
        return self.cost(MILLION / engine.tokens_per_second)


REPORT = EngineRatesView
