"""What became of a new model, in words: for the terminal and for Prefect's artifacts."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from embedding_core.identity import SHOWN_DIGITS
from embedding_core.reports.gate import gate_lines, gate_markdown, gate_summary
from embedding_core.reports.markdown import text_block
from embedding_core.reports.text import FILES_SHOWN, index_line, release_line
from embedding_core.runs.outcome import exit_code_of
from embedding_core.runs.space.release import ReembedReport


def reembed_lines(report: ReembedReport) -> list[str]:
    """What became of a new model, step by step."""
    lines = [reembed_summary(report)]
    if report.sample is not None:
        lines.append(f"sample: {report.sampled_rows:,} rows, {report.sampled_tokens:,} tokens")
        lines += gate_lines(report.sample)
    if report.space is not None:
        done = report.space
        lines.append(
            f"column {report.column}: {done.rows:,} rows filled in {done.fragments:,} fragments, "
            f"{done.encoded:,} texts encoded, {done.tokens:,} tokens, {done.truncated:,} cut, "
            f"{done.missing_rows:,} rows without a vector"
        )
    if report.index is not None:
        lines.append(index_line(report.index))
    if report.gate is not None:
        lines += gate_lines(report.gate)
    if report.release is not None:
        lines.append(release_line(report.release))
    return [*lines, *(f"FAILED: {failure}" for failure in report.failures[:FILES_SHOWN])]


def reembed_data(report: ReembedReport) -> dict[str, Any]:
    """What became of a new model, as plain values, with its summary."""
    code = exit_code_of(report.outcome)
    return {"summary": reembed_summary(report), **asdict(report), "exit_code": code}


def reembed_summary(report: ReembedReport) -> str:
    """One line for a state's message."""
    what = {
        "in service already": "nothing to do: its space is in service already",
        "promoted": "in service now",
        "built": f"built in column {report.column}, not put in service",
        "refused": "refused by the gate",
        "failed": "failed; run the same command again, it goes on where this ended",
    }[report.outcome]
    if report.outcome == "refused" and (judged := report.gate or report.sample) is not None:
        what += f" ({gate_summary(judged)})"
    space = report.space_id[:SHOWN_DIGITS]
    return f"{report.model} (space {space}): {what} · {report.seconds:.1f} s"


def reembed_markdown(report: ReembedReport) -> str:
    """The report with the gate's evidence, as a Prefect markdown artifact."""
    judged = [gate_markdown(one) for one in (report.sample, report.gate) if one is not None]
    steps = f"# New model for {report.recipe}\n\n{text_block(reembed_lines(report))}"
    return "\n\n".join([steps, *judged])
