"""The report of an evaluation: how well a column answers labelled queries."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from embedding_core.reports.report import Report
from embedding_core.runs.space.evaluation import Evaluation


@dataclass(frozen=True)
class EvaluationView(Report):
    """An evaluation in words, each metric with its interval."""

    record: ClassVar[type] = Evaluation
    evaluation: Evaluation

    def summary(self) -> str:
        return f"{self.evaluation.column}: {self.evaluation.queries:,} queries, 95 % intervals"

    def lines(self) -> list[str]:
        return [
            self.summary(),
            *(
                f"  {name:<10} {metric.mean:.4f}  ({metric.low:.4f} to {metric.high:.4f})"
                for name, metric in self.evaluation.metrics.items()
            ),
        ]

    def data(self) -> dict[str, Any]:
        """The record with its metrics under the name of the column."""
        data = asdict(self.evaluation)
        metrics = data.pop("metrics")
        return data | {"columns": {self.evaluation.column: metrics}}


REPORT = EvaluationView
