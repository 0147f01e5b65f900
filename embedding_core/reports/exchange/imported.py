"""The report of an import: which rows came, and what was checked of their vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from embedding_core.identity import SHOWN_DIGITS
from embedding_core.plurals import counted
from embedding_core.reports.report import Report, ended_data
from embedding_core.runs.exchange.importing import ImportReport
from embedding_core.runs.outcome import Outcome


@dataclass(frozen=True)
class ImportView(Report):
    """An import in words."""

    record: ClassVar[type] = ImportReport
    imported: ImportReport

    @property
    def outcome(self) -> Outcome:
        return self.imported.outcome

    def summary(self) -> str:
        done = self.imported
        return (
            f"done: {counted(done.rows, 'row')} of {done.origin} ({done.format}) to {done.table}, "
            f"space {done.space_id[:SHOWN_DIGITS]}, in {done.seconds:.1f} s"
        )

    def lines(self) -> list[str]:
        done = self.imported
        lines = [self.summary()]
        if done.checked_rows:
            lines.append(
                f"{counted(done.checked_rows, 'text')} embedded again have the same vectors"
            )
        if done.unchecked is not None:
            lines.append(f"NOT CHECKED against the model: {done.unchecked}")
        if done.normalized:
            lines.append(f"{counted(done.normalized, 'vector')} brought to unit length")
        if done.columns_made:
            lines.append(f"columns made here: {', '.join(done.columns_made)}")
        if done.columns_left_out:
            lines.append(f"columns left out: {', '.join(done.columns_left_out)}")
        return [" ".join(line.split()) for line in lines]

    def data(self) -> dict[str, Any]:
        return ended_data(self, self.imported)


REPORT = ImportView
