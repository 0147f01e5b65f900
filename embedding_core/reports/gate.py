"""The report of the release gate: verdict, metrics and findings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from embedding_core.identity import SHOWN_DIGITS
from embedding_core.plurals import counted
from embedding_core.quality import Interval
from embedding_core.quality.judgement import GateReport, JudgedSpace
from embedding_core.reports.report import Report, ended_data, table
from embedding_core.runs.outcome import Outcome

MARKS = {"failed": "NO ", "warning": "!  ", "passed": "ok ", "info": "   "}


@dataclass(frozen=True)
class GateView(Report):
    """A gate's verdict in words, with its evidence. ``picture`` draws it."""

    record: ClassVar[type] = GateReport
    gate: GateReport

    @property
    def outcome(self) -> Outcome:
        return "done" if self.gate.verdict == "yes" else "refused"

    def summary(self) -> str:
        gate = self.gate
        difference = gate.metrics["ndcg@10"].difference
        failed = ", ".join(finding.name for finding in gate.findings if finding.outcome == "failed")
        return (
            f"{gate.verdict}: {gate.new.model} ({gate.new.column}) against {gate.old.model}, "
            f"nDCG@10 {difference.mean:+.4f} on {gate.queries:,} {gate.queries_kind} "
            "queries" + (f"; failed: {failed}" if failed else "")
        )

    def lines(self) -> list[str]:
        return [
            f"verdict: {self.gate.verdict.upper()}",
            f"old: {_space(self.gate.old)}",
            f"new: {_space(self.gate.new)}",
            self._basis(),
            f"{'':<12}{'old':<26}{'new':<26}new - old, 95 %",
            *(f"{name:<12}{old:<26}{new:<26}{diff}" for name, old, new, diff in self._metrics()),
            *(
                f"{MARKS[finding.outcome]} {finding.name}: {finding.sentence}"
                for finding in self.gate.findings
            ),
        ]

    def data(self) -> dict[str, Any]:
        return ended_data(self, self.gate)

    def markdown(self) -> str:
        gate = self.gate
        return "\n".join(
            [
                f"# Release gate of {gate.recipe}: {gate.verdict}",
                "",
                f"- old: {_space(gate.old)}",
                f"- new: {_space(gate.new)}",
                f"- {self._basis()}",
                "",
                table(("metric", "old", "new", "new - old"), self._metrics()),
                "",
                "Means with 95 % bootstrap intervals over the queries; the difference is paired.",
                "",
                table(
                    ("outcome", "what", "finding"),
                    [
                        (finding.outcome, finding.name, finding.sentence)
                        for finding in gate.findings
                    ],
                ),
                "",
            ]
        )

    def _basis(self) -> str:
        """The queries and rows that the verdict rests on."""
        gate = self.gate
        kind = {"labelled": "labelled", "known-item": "self-made known-item"}[gate.queries_kind]
        rows = counted(gate.rows, "row")
        if gate.sampled_share is not None:
            rows += f", a sample of {gate.sampled_share:.2%} of the table"
        return f"{counted(gate.queries, f'{kind} query')} over {rows} in {gate.seconds:.1f} s"

    def _metrics(self) -> list[tuple[str, str, str, str]]:
        """For each metric its name, the old and the new value, and their difference."""
        return [
            (name, _interval(pair.old), _interval(pair.new), _interval(pair.difference, "+"))
            for name, pair in self.gate.metrics.items()
        ]


def _space(space: JudgedSpace) -> str:
    return (
        f"{space.model} · {counted(space.dim, 'dimension')} · space "
        f"{space.space_id[:SHOWN_DIGITS]} · column {space.column}"
    )


def _interval(interval: Interval, sign: str = "") -> str:
    return f"{interval.mean:{sign}.4f} ({interval.low:{sign}.4f} to {interval.high:{sign}.4f})"


REPORT = GateView
