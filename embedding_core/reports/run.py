"""The report of an embed run: its ledger, its rejects and its verification."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from embedding_core.identity import SHOWN_DIGITS
from embedding_core.plurals import counted
from embedding_core.reports.maintenance import MaintenanceView, index_line
from embedding_core.reports.report import (
    LINES_SHOWN,
    Report,
    ended_data,
    stage_words,
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
            return (
                f"nothing to do: no file changed, {counted(self.run.rows, 'row')} in "
                f"{self.run.table}"
            )
        ended = "finished with rejects" if self.outcome == "rejected" else self.outcome
        return (
            f"{ended}: {counted(self.run.embedded, 'chunk')} embedded, "
            f"{counted(self.run.rows, 'row')} in "
            f"{self.run.table}, run {self.run.run_id[:SHOWN_DIGITS]}"
        )

    def lines(self) -> list[str]:
        run = self.run
        lines = [
            f"table {run.table} · version {run.version} · {counted(run.rows, 'row')}",
            f"files: {run.added:,} added, {run.changed:,} replaced, {run.moved:,} moved, "
            f"{run.removed:,} removed, {run.unchanged:,} unchanged, {run.unreadable:,} unreadable",
            f"ledger: {counted(run.documents, 'document')}, {counted(run.chunks, 'chunk')} = "
            f"{run.embedded:,} embedded + {run.reused:,} reused + {run.dropped:,} dropped + "
            f"{run.failed:,} failed",
            f"speed: {counted(run.tokens, 'token')} in {run.seconds:.1f} s "
            f"({run.tokens_per_second:,.0f} tokens/s, all stages)",
        ]
        if run.units:
            lines.append(self._stage_line())
        if run.recomputed:
            lines.append(
                f"half precision overflowed for {counted(run.recomputed, 'row')}: computed wider"
            )
        if run.halvings:
            lines.append(f"memory ran out {counted(run.halvings, 'time')}: batches became smaller")
        if run.duplicates or run.left_out:
            lines.append(
                f"left out by choice: {counted(run.duplicates, 'duplicate')}, "
                f"{counted(run.left_out, 'document')} by the sample or the limit"
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
            "## Time by stage\n\nAll workers together; `wait` is that of units for a worker.",
            table(
                ("stage", "seconds"),
                [(name, f"{seconds:,.2f}") for name, seconds in asdict(self.run.stages).items()],
            ),
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

    def _stage_line(self) -> str:
        run = self.run
        parts = [
            f"stages, all workers together: {stage_words(run.stages)}",
            f"a unit waited {run.stages.wait / run.units:,.1f} s",
        ]
        if run.batch_fill is not None:
            parts.append(f"batches {run.batch_fill:.0%} full")
        if run.cost is not None:
            parts.append(f"cost {run.cost:,.4f}")
        return "; ".join(parts)

    def _verification_lines(self) -> list[str]:
        checked = self.run.verification
        if checked.passed:
            heading = (
                f"verified: {counted(checked.files, 'file')}, {counted(checked.rows, 'row')}, "
                "no problem"
            )
        else:
            heading = f"VERIFICATION FAILED: {counted(len(checked.problems), 'problem')}"
        return [heading, *(f"  {problem}" for problem in checked.problems[:LINES_SHOWN])]


REPORT = RunView
