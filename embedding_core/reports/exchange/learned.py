"""The report of a table's feedback: what people said, and what was written of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from embedding_core.plurals import counted
from embedding_core.reports.report import Report
from embedding_core.runs.exchange.feedback_export import FeedbackReport


@dataclass(frozen=True)
class FeedbackView(Report):
    """Feedback in words."""

    record: ClassVar[type] = FeedbackReport
    feedback: FeedbackReport

    def summary(self) -> str:
        done = self.feedback
        return (
            f"feedback of {done.recipe}: {counted(done.rows, 'row')}, "
            f"{counted(done.queries, 'query')} with a relevant document"
        )

    def lines(self) -> list[str]:
        done = self.feedback
        signals = ", ".join(f"{count:,} {signal}" for signal, count in done.signals.items())
        lines = [
            self.summary(),
            f"{signals}; {counted(done.judgements, 'judgement')} of "
            f"{counted(done.documents, 'document')}",
            f"{counted(done.train_queries, 'query')} to train on, {done.held_out_queries:,} held "
            f"out, {done.left_out:,} without a relevant document",
        ]
        return [*lines, *(f"wrote {file}" for file in done.files)]

    def data(self) -> dict[str, Any]:
        return {"summary": self.summary(), **asdict(self.feedback)}


REPORT = FeedbackView
