"""The report of an evaluation: how well a column answers labelled queries."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from embedding_core.identity import SHOWN_DIGITS
from embedding_core.plurals import counted
from embedding_core.reports.report import Report, table
from embedding_core.runs.space.evaluation import Evaluation


@dataclass(frozen=True)
class EvaluationView(Report):
    """An evaluation in words, each metric with its interval."""

    record: ClassVar[type] = Evaluation
    evaluation: Evaluation

    def summary(self) -> str:
        queries = counted(self.evaluation.queries, "query")
        return f"{self.evaluation.column}: {queries}, 95 % intervals"

    def lines(self) -> list[str]:
        return [
            self.summary(),
            *(
                f"  {name:<10} {metric.mean:.4f}  ({metric.low:.4f} to {metric.high:.4f})"
                for name, metric in self.evaluation.metrics.items()
            ),
        ]

    def markdown(self) -> str:
        rows = [
            (name, f"{metric.mean:.4f}", f"{metric.low:.4f} to {metric.high:.4f}")
            for name, metric in self.evaluation.metrics.items()
        ]
        left_out = self.evaluation.queries_without_relevant
        return "\n\n".join(
            [
                f"# Evaluation of {self.evaluation.column}",
                table(("metric", "mean", "95 % interval"), rows),
                f"Means over {counted(self.evaluation.queries, 'query')} by exact search, with "
                f"bootstrap intervals; left out: {counted(left_out, 'query')} without a relevant "
                f"document. Space {self.evaluation.space_id[:SHOWN_DIGITS]}.",
            ]
        )

    def data(self) -> dict[str, Any]:
        """The record with its metrics under the name of the column."""
        data = asdict(self.evaluation)
        metrics = data.pop("metrics")
        return data | {"columns": {self.evaluation.column: metrics}}


REPORT = EvaluationView
