"""Plans and reports in words: the same text for the terminal and for Prefect's artifacts."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from embedding_core.identity import SHOWN_DIGITS
from embedding_core.pipeline import RunReport, Status
from embedding_core.records import Plan

if TYPE_CHECKING:  # it loads torch, which only `bench` needs
    from embedding_core.encoder.measure import ModelSpeed

FILES_SHOWN = 20


def plan_lines(planned: Plan, cost: float | None = None) -> list[str]:
    """The plan as ``terraform plan`` would put it."""
    if planned.is_empty:
        return [f"Nothing to do: the table holds all {planned.unchanged:,} files as they are."]
    changes = [one.change for one in planned.files]
    lines = [
        f"{changes.count('added'):,} files to add, {changes.count('changed'):,} to replace, "
        f"{len(planned.removed_uris):,} to remove, {planned.unchanged:,} unchanged"
    ]
    marks = {"added": "+", "changed": "~"}
    shown = [f"  {marks[one.change]} {one.file.uri}  ({one.why})" for one in planned.files]
    shown += [f"  - {uri}  (left the source)" for uri in planned.removed_uris]
    shown += [f"  ! {one.source_uri}  ({one.detail})" for one in planned.unreadable]
    lines += shown[:FILES_SHOWN]
    if len(shown) > FILES_SHOWN:
        lines.append(f"  … and {len(shown) - FILES_SHOWN:,} more (all with --json)")
    return [*lines, _estimate_line(planned, cost)]


def _estimate_line(planned: Plan, cost: float | None) -> str:
    line = f"{planned.size_bytes:,} bytes, about {planned.estimated_tokens:,} tokens"
    if planned.estimated_seconds is not None:
        line += f", about {planned.estimated_seconds:,.0f} s at the rate measured so far"
    if cost is not None:
        line += f", about {cost:,.2f} at EMBEDLAKE_PRICE_PER_HOUR"
    return line


def speed_lines(speed: ModelSpeed, cost_per_million_tokens: float | None) -> list[str]:
    """What ``embedlake bench`` found."""
    lines = [
        f"{speed.device}, {speed.dtype}: matrices reach "
        f"{speed.matrix_flops_per_second / 1e9:,.0f} GFLOP/s here",
        "tokens per text   token budget   tokens/s   share of the matrix rate",
    ]
    lines += [
        f"{one.name:>15}   {one.batch_tokens:>12,}   {one.tokens_per_second:>8,.0f}   "
        f"{one.share_of_limit:>5.0%}"
        for one in speed.workloads
    ]
    lines.append(
        f"fastest on the mix: EMBEDLAKE_RESOURCES__BATCH_TOKENS={speed.batch_tokens}, "
        f"{speed.tokens_per_second:,.0f} tokens/s, peak memory "
        f"{speed.peak_memory_bytes / 2**20:,.0f} MiB"
    )
    if cost_per_million_tokens is not None:
        lines.append(f"a million tokens cost about {cost_per_million_tokens:,.4f}")
    return lines


def report_lines(report: RunReport) -> list[str]:
    """The ledger of a run and its verification."""
    lines = [
        f"table {report.table} · version {report.version} · {report.rows:,} rows",
        f"files: {report.added:,} added, {report.changed:,} replaced, {report.removed:,} removed, "
        f"{report.unchanged:,} unchanged, {report.unreadable:,} unreadable",
        f"ledger: {report.documents:,} documents, {report.chunks:,} chunks = "
        f"{report.embedded:,} embedded + {report.reused:,} reused + {report.dropped:,} dropped + "
        f"{report.failed:,} failed",
        f"speed: {report.tokens:,} tokens in {report.seconds:.1f} s "
        f"({report.tokens_per_second:,.0f} tokens/s, all stages)",
    ]
    if report.recomputed:
        lines.append(f"half precision overflowed for {report.recomputed:,} rows: computed wider")
    if report.rejects:
        reasons = ", ".join(f"{n:,} {reason}" for reason, n in report.rejects.items())
        lines.append(f"rejects: {reasons} (listed in the rejects table)")
    if report.index is not None:
        lines.append(
            f"index {report.index.name}: recall@10 {report.index.recall:.3f} measured against "
            f"exact search, nprobes {report.index.nprobes}"
        )
    checks = report.verification
    lines.append(
        f"verified: {checks.files:,} files, {checks.rows:,} rows, no problem"
        if checks.passed
        else f"VERIFICATION FAILED: {len(checks.problems)} problems"
    )
    lines += [f"  {problem}" for problem in checks.problems[:FILES_SHOWN]]
    lines += [f"FAILED: {failure}" for failure in report.failures[:FILES_SHOWN]]
    return lines


def markdown(title: str, lines: list[str]) -> str:
    """Lines as a Prefect markdown artifact."""
    body = "\n".join(lines)
    return f"# {title}\n\n```\n{body}\n```\n"


def report_data(report: RunReport) -> dict[str, Any]:
    """The report as plain values, with its summary."""
    return {"summary": run_summary(report), **asdict(report)}


def status_lines(status: Status) -> list[str]:
    """A table's state in words."""
    space = status.space
    lines = [
        f"table {status.table} · version {status.version} · {status.rows:,} rows from "
        f"{status.files:,} files in {status.fragments:,} fragments",
        f"recipe: {status.recipe}",
        f"space in service: {status.space_id[:SHOWN_DIGITS]} · {space['model']} · "
        f"{space['dim']} dimensions · {space['max_tokens']:,} tokens · {space['pooling']} pooling",
        "ledger: " + ", ".join(f"{n:,} {name}" for name, n in status.ledger.items()),
        "rejects: " + (", ".join(f"{n:,} {r}" for r, n in status.rejects.items()) or "none"),
    ]
    lines += [
        f"index {name}: {n:,} rows not covered yet" for name, n in status.unindexed_rows.items()
    ]
    lines += [
        f"run {run.run_id[:SHOWN_DIGITS]} · {run.finished_at} · {run.files:,} files · "
        f"{run.chunks:,} chunks"
        for run in status.runs
    ]
    return lines


def run_summary(report: RunReport) -> str:
    """One line for a state's message."""
    outcome = {0: "done", 1: "failed", 3: "finished with rejects"}[report.exit_code]
    return (
        f"{outcome}: {report.embedded:,} chunks embedded, {report.rows:,} rows in "
        f"{report.table}, run {report.run_id[:SHOWN_DIGITS]}"
    )
