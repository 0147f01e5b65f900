"""The report of an embed run: its ledger, its rejects and its verification."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from embedding_core.identity import SHOWN_DIGITS
from embedding_core.reports.maintenance import MaintenanceView, index_line
from embedding_core.reports.report import (
    LINES_SHOWN,
    Report,
    ended_data,
    table,
    text_block,
)
from embedding_core.runs.embed.finish_stage import RunReport
from embedding_core.runs.outcome import Outcome

LEDGER = (
    "documents", "rejected", "duplicates", "left_out", "chunks", "embedded", "reused", "dropped",
    "failed", "tokens",
)  # fmt: skip
"""Counts of a run, in the order in which they add up."""


@dataclass(frozen=True)
class RunView(Report):
    """An embed run in words."""

    record: ClassVar[type] = RunReport
    run: RunReport

    @property
    def outcome(self) -> Outcome:
        return self.run.outcome

    def summary(self) -> str:
        if not self.run.run_id:
            return f"nothing to do: no file changed, {self.run.rows:,} rows in {self.run.table}"
        ended = "finished with rejects" if self.outcome == "rejected" else self.outcome
        return (
            f"{ended}: {self.run.embedded:,} chunks embedded, {self.run.rows:,} rows in "
            f"{self.run.table}, run {self.run.run_id[:SHOWN_DIGITS]}"
        )

    def lines(self) -> list[str]:
        run = self.run
        lines = [
            f"table {run.table} · version {run.version} · {run.rows:,} rows",
            f"files: {run.added:,} added, {run.changed:,} replaced, {run.moved:,} moved, "
            f"{run.removed:,} removed, {run.unchanged:,} unchanged, {run.unreadable:,} unreadable",
            f"ledger: {run.documents:,} documents, {run.chunks:,} chunks = "
            f"{run.embedded:,} embedded + {run.reused:,} reused + {run.dropped:,} dropped + "
            f"{run.failed:,} failed",
            f"speed: {run.tokens:,} tokens in {run.seconds:.1f} s "
            f"({run.tokens_per_second:,.0f} tokens/s, all stages)",
        ]
        if run.recomputed:
            lines.append(f"half precision overflowed for {run.recomputed:,} rows: computed wider")
        if run.duplicates or run.left_out:
            lines.append(
                f"left out by choice: {run.duplicates:,} duplicates, {run.left_out:,} documents by "
                "the sample or the limit"
            )
        if run.rejects:
            reasons = ", ".join(f"{n:,} {reason}" for reason, n in run.rejects.items())
            lines.append(f"rejects: {reasons} (`embedlake status RECIPE --rejects` lists them)")
        if run.index is not None:
            lines.append(index_line(run.index))
        if run.maintenance is not None:
            lines += MaintenanceView(run.maintenance).lines()
        lines += self._verification_lines()
        return [*lines, *(f"FAILED: {failure}" for failure in run.failures[:LINES_SHOWN])]

    def data(self) -> dict[str, Any]:
        values = ended_data(self, self.run)
        del values["outcome"]  # the exit code says it
        return values

    def markdown(self) -> str:
        """What the run did: the ledger, rejects by reason, and the command that lists them."""
        counts = [(name, f"{getattr(self.run, name):,}") for name in LEDGER]
        blocks = [
            f"# Run of {self.run.recipe}",
            text_block(self.lines()),
            "## Ledger\n\n`chunks = embedded + reused + dropped + failed`",
            table(("count", "value"), counts),
        ]
        if self.run.rejects:
            rejects = [(reason, f"{n:,}") for reason, n in self.run.rejects.items()]
            blocks += [
                "## Rejects",
                table(("reason", "rows"), rejects),
                "Each one with its file, its place and what to do: "
                "`embedlake status RECIPE --rejects`",
            ]
        return "\n\n".join(blocks)

    def _verification_lines(self) -> list[str]:
        checked = self.run.verification
        if checked.passed:
            heading = f"verified: {checked.files:,} files, {checked.rows:,} rows, no problem"
        else:
            heading = f"VERIFICATION FAILED: {len(checked.problems)} problems"
        return [heading, *(f"  {problem}" for problem in checked.problems[:LINES_SHOWN])]


REPORT = RunView
