"""The report of an answer: the rows that a query found."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from embedding_core.plurals import counted
from embedding_core.reports.report import Report
from embedding_core.runs.answers import Answer


@dataclass(frozen=True)
class AnswerView(Report):
    """An answer in words, the best hit first."""

    record: ClassVar[type] = Answer
    answer: Answer
    with_query: bool = False
    """Begin with a line that has the query's id and words."""

    def summary(self) -> str:
        return f"{self._heading()}: {counted(len(self.answer.hits), 'hit')}"

    def lines(self) -> list[str]:
        lines = [self._heading()] if self.with_query else []
        for rank, hit in enumerate(self.answer.hits, start=1):
            lines.append(f"{rank:>3}. {hit.score:.3f}  {hit.doc_id}  ({hit.source_uri})")
            lines += [f"       {line}" for line in hit.text.splitlines()]
        return lines if self.answer.hits else [*lines, "nothing found"]

    def data(self) -> dict[str, Any]:
        return asdict(self.answer)

    def _heading(self) -> str:
        return f"{self.answer.query_id}: {self.answer.query}"


REPORT = AnswerView
