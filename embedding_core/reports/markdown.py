"""What Prefect shows of a run as pages: the plan with its reasons, the ledger with its rejects."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from embedding_core.records import Plan
from embedding_core.reports.text import plan_lines, report_lines
from embedding_core.runs.embed.finish_stage import RunReport

MOST_ROWS = 200
"""Files in a plan's table: a page of thousands helps nobody, `embedlake plan --json` has all."""
LEDGER = (
    "documents", "rejected", "chunks", "embedded", "reused", "dropped", "failed", "tokens",
)  # fmt: skip
"""Counts of a run, in the order in which they add up."""


def plan_page(planned: Plan, cost: float | None) -> str:
    """Every file that is worked on, with what happens to it and why."""
    files: list[tuple[str, str, str]] = []
    files += [(one.file.uri, one.change, one.why) for one in planned.files]
    files += [(uri, "removed", "left the source") for uri in planned.removed_uris]
    files += [(one.source_uri, "unreadable", one.detail) for one in planned.unreadable]
    parts = [f"# Plan for {planned.recipe}", text_block(_summary(plan_lines(planned, cost)))]
    if files:
        parts.append(table(("file", "change", "why"), files[:MOST_ROWS]))
    if len(files) > MOST_ROWS:
        parts.append(f"… and {len(files) - MOST_ROWS:,} more: `embedlake plan RECIPE --json`")
    return "\n\n".join(parts)


def ledger_page(report: RunReport) -> str:
    """What a run did: the ledger, rejects by reason, and the command that lists them."""
    counts = [(name, f"{getattr(report, name):,}") for name in LEDGER]
    parts = [
        f"# Run of {report.recipe}",
        text_block(report_lines(report)),
        "## Ledger\n\n`chunks = embedded + reused + dropped + failed`",
        table(("count", "value"), counts),
    ]
    if report.rejects:
        rejects = [(reason, f"{n:,}") for reason, n in report.rejects.items()]
        parts += [
            "## Rejects",
            table(("reason", "rows"), rejects),
            "Each one with its file, its place and what to do: `embedlake status RECIPE --rejects`",
        ]
    return "\n\n".join(parts)


def text_block(lines: Sequence[str]) -> str:
    """Lines as they are."""
    body = "\n".join(lines)
    return f"```\n{body}\n```"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A markdown table; cells may hold anything."""
    lines = [_row(columns), _row(["---"] * len(columns))]
    return "\n".join([*lines, *(_row([_cell(text) for text in row]) for row in rows)])


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(text: str) -> str:
    """Text that cannot end its cell or begin markup."""
    flat = " ".join(text.split())
    return "".join(f"\\{char}" if char in "\\|`*_<>[]" else char for char in flat)


def _summary(lines: Sequence[str]) -> list[str]:
    """A plan's lines without those of single files, which the table has."""
    return [line for line in lines if not line.startswith(("  + ", "  ~ ", "  > ", "  - ", "  ! "))]
