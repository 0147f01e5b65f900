"""The report of a reembed run: what became of a new model, step by step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from embedding_core.identity import SHOWN_DIGITS
from embedding_core.plurals import counted
from embedding_core.reports.gate import GateView
from embedding_core.reports.maintenance import index_line
from embedding_core.reports.releases import release_line
from embedding_core.reports.report import LINES_SHOWN, Report, ended_data, stage_words, text_block
from embedding_core.runs.outcome import Outcome
from embedding_core.runs.space.build import SpaceReport
from embedding_core.runs.space.release import ReembedReport


@dataclass(frozen=True)
class ReembedView(Report):
    """A reembed run in words, with the gate's evidence."""

    record: ClassVar[type] = ReembedReport
    run: ReembedReport

    @property
    def outcome(self) -> Outcome:
        return self.run.run_outcome

    def summary(self) -> str:
        run = self.run
        ended = {
            "in service already": "nothing to do: its space is in service already",
            "promoted": "in service now",
            "built": f"built in column {run.column}, not put in service",
            "refused": "refused by the gate",
            "failed": "failed; run the same command again, it goes on where this ended",
        }[run.outcome]
        if run.outcome == "refused" and (gate := run.gate or run.sample) is not None:
            ended += f" ({GateView(gate).summary()})"
        return f"{run.model} (space {run.space_id[:SHOWN_DIGITS]}): {ended} · {run.seconds:.1f} s"

    def lines(self) -> list[str]:
        run = self.run
        lines = [self.summary()]
        if run.sample is not None:
            lines.append(
                f"sample: {counted(run.sampled_rows, 'row')}, "
                f"{counted(run.sampled_tokens, 'token')}"
            )
            lines += GateView(run.sample).lines()
        if run.space is not None:
            lines += _space_lines(run.column, run.space)
        if run.index is not None:
            lines.append(index_line(run.index))
        if run.gate is not None:
            lines += GateView(run.gate).lines()
        if run.release is not None:
            lines.append(release_line(run.release))
        return [*lines, *(f"FAILED: {failure}" for failure in run.failures[:LINES_SHOWN])]

    def data(self) -> dict[str, Any]:
        return ended_data(self, self.run)

    def markdown(self) -> str:
        """The steps, then the evidence of each judgement."""
        gates = [gate for gate in (self.run.sample, self.run.gate) if gate is not None]
        steps = f"# New model for {self.run.recipe}\n\n{text_block(self.lines())}"
        return "\n\n".join([steps, *(GateView(gate).markdown() for gate in gates)])


def _space_lines(column: str | None, space: SpaceReport) -> list[str]:
    cost = "" if space.cost is None else f"; cost {space.cost:,.4f}"
    return [
        f"column {column}: {counted(space.rows, 'row')} filled in "
        f"{counted(space.fragments, 'fragment')}, {counted(space.encoded, 'text')} encoded, "
        f"{counted(space.tokens, 'token')}, {space.truncated:,} cut, "
        f"{counted(space.missing_rows, 'row')} without a vector",
        f"stages, all workers together: {stage_words(space.stages)}{cost}",
    ]


REPORT = ReembedView
