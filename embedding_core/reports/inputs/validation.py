"""The report of a file beside its rows: what differs, why, and what to do about it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from embedding_core.identity import SHOWN_DIGITS
from embedding_core.plurals import counted
from embedding_core.reports.report import HINTS, Report
from embedding_core.runs.inputs.checking import Counted, FileCheck, NextStep, RowDifference
from embedding_core.runs.outcome import EXIT_CODES, Outcome

NEXT_STEPS: dict[NextStep, str] = {
    "none": "nothing a run could change",
    "embed": HINTS["embed"],
    "wait": "run the same command again when the run has ended; a run that died is continued by "
    "`embedlake embed RECIPE`",
    "retry": "`embedlake retry-rejected RECIPE` works on such chunks again",
    "verify": "no run would see this, the table was changed by hand or is damaged: "
    + HINTS["repair"],
}
MARKS = {"missing": "-", "extra": "+", "different": "~"}


@dataclass(frozen=True)
class ValidationView(Report):
    """A check of one file in words."""

    record: ClassVar[type] = FileCheck
    check: FileCheck

    @property
    def outcome(self) -> Outcome:
        return self.check.outcome

    def summary(self) -> str:
        check = self.check
        if self.outcome == "done":
            rows = counted(check.expected.chunks, "row")
            return f"{check.source_uri}: {rows}, as the file gives them now"
        return (
            f"{check.source_uri}: {counted(check.missing, 'row')} missing, {check.extra:,} extra, "
            f"{check.different:,} different"
        )

    def lines(self) -> list[str]:
        check = self.check
        lines = [
            self.summary(),
            f"  file:  {_counted(check.expected)}",
            f"  table: {_counted(check.in_table)} ({check.table}, version {check.version})",
            *(f"  why: {why}" for why in check.why),
            *map(_difference_line, check.differences),
        ]
        n_more = check.missing + check.extra + check.different - len(check.differences)
        if n_more:
            lines.append(f"  … and {n_more:,} more differences")
        if self.outcome != "done":
            lines.append(f"next: {NEXT_STEPS[check.next_step]}")
        return lines

    def data(self) -> dict[str, Any]:
        return asdict(self.check) | {
            "summary": self.summary(),
            "exit_code": EXIT_CODES[self.outcome],
        }


def _counted(counts: Counted) -> str:
    rejects = ", ".join(f"{n:,} {reason}" for reason, n in sorted(counts.rejects.items()))
    return (
        f"{counted(counts.documents, 'document')}, {counted(counts.chunks, 'chunk')}, "
        f"{counted(counts.tokens, 'token')}, rejects: {rejects or 'none'}"
    )


def _difference_line(difference: RowDifference) -> str:
    line = (
        f"  {MARKS[difference.kind]} {difference.kind}: document {difference.doc_id!r}, chunk "
        f"{difference.chunk_index:,} ({difference.chunk_id[:SHOWN_DIGITS]})"
    )
    if difference.columns:
        line += f": {', '.join(difference.columns)}"
    return line if difference.why is None else f"{line}: {difference.why}"


REPORT = ValidationView
