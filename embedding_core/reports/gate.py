"""The release gate's report for people: lines, a Prefect artifact, a picture."""

from __future__ import annotations

import base64
import io
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedding_core.identity import SHOWN_DIGITS
from embedding_core.quality import QUANTILES, Comparison, Interval
from embedding_core.runs.space.judgement import GateReport, JudgedSpace

if TYPE_CHECKING:  # half a second to import, and only the picture needs it
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKS = {"failed": "NO ", "warning": "!  ", "passed": "ok ", "info": "   "}
LIMIT_COLOUR = "#b3261e"
OLD_COLOUR, NEW_COLOUR = "#5b6770", "#1b7fbd"
"""Told apart by lightness too, in print and by people who see no colours."""


def gate_summary(report: GateReport) -> str:
    """One line for a state's message."""
    compared = report.metrics["ndcg@10"]
    reasons = ", ".join(one.name for one in report.findings if one.outcome == "failed")
    return (
        f"{report.verdict}: {report.new.model} ({report.new.column}) against {report.old.model}, "
        f"nDCG@10 {compared.difference.mean:+.4f} on {report.queries:,} {report.queries_kind} "
        "queries" + (f"; failed: {reasons}" if reasons else "")
    )


def gate_data(report: GateReport) -> dict[str, Any]:
    """The report as plain values, with its summary."""
    return {"summary": gate_summary(report), **asdict(report), "exit_code": report.exit_code}


def gate_lines(report: GateReport) -> list[str]:
    """The verdict, the metrics and every finding."""
    lines = [
        f"verdict: {report.verdict.upper()}",
        f"old: {_space(report.old)}",
        f"new: {_space(report.new)}",
        _basis(report),
        f"{'':<12}{'old':<26}{'new':<26}new - old, 95 %",
    ]
    lines += [f"{name:<12}{old:<26}{new:<26}{change}" for name, old, new, change in _cells(report)]
    return [
        *lines,
        *(f"{MARKS[one.outcome]} {one.name}: {one.sentence}" for one in report.findings),
    ]


def gate_markdown(report: GateReport) -> str:
    """The same as a Prefect markdown artifact."""
    metrics = [f"| {' | '.join(cells)} |" for cells in _cells(report)]
    found = [f"| {one.outcome} | {one.name} | {one.sentence} |" for one in report.findings]
    return "\n".join(
        [
            f"# Release gate of {report.recipe}: {report.verdict}",
            "",
            f"- old: {_space(report.old)}",
            f"- new: {_space(report.new)}",
            f"- {_basis(report)}",
            "",
            "| metric | old | new | new - old |",
            "|---|---|---|---|",
            *metrics,
            "",
            "Means with 95 % bootstrap intervals over the queries; the difference is paired.",
            "",
            "| outcome | what | finding |",
            "|---|---|---|",
            *found,
            "",
        ]
    )


def write_picture(report: GateReport, path: Path) -> None:
    """Write the picture as SVG."""
    path.write_bytes(_svg(report))


def picture_uri(report: GateReport) -> str:
    """The picture as a ``data:`` URI, for Prefect's image artifact: its page shows it as it is."""
    return "data:image/svg+xml;base64," + base64.b64encode(_svg(report)).decode()


def _space(space: JudgedSpace) -> str:
    return (
        f"{space.model} · {space.dim} dimensions · space {space.space_id[:SHOWN_DIGITS]} · column "
        f"{space.column}"
    )


def _basis(report: GateReport) -> str:
    kind = {"labelled": "labelled", "known-item": "self-made known-item"}[report.queries_kind]
    rows = f"{report.rows:,} rows"
    if report.sampled_share is not None:
        rows += f", a sample of {report.sampled_share:.2%} of the table"
    return f"{report.queries:,} {kind} queries over {rows} in {report.seconds:.1f} s"


def _cells(report: GateReport) -> list[tuple[str, str, str, str]]:
    """Of each metric: its name, old, new, difference."""
    return [
        (name, _interval(one.old), _interval(one.new), _interval(one.difference, "+"))
        for name, one in report.metrics.items()
    ]


def _interval(one: Interval, sign: str = "") -> str:
    return f"{one.mean:{sign}.4f} ({one.low:{sign}.4f} to {one.high:{sign}.4f})"


def _svg(report: GateReport) -> bytes:
    from matplotlib import rc_context

    written = io.BytesIO()
    with rc_context({"svg.fonttype": "none"}):  # letters as text: half the size
        _picture(report).savefig(written, format="svg", metadata={"Date": None})
    return written.getvalue()


def _picture(report: GateReport) -> Figure:
    from matplotlib.figure import Figure  # unlike pyplot, it keeps nothing after the call

    figure = Figure(figsize=(10, 3.6), layout="constrained")
    metrics, differences, scores = figure.subplots(1, 3, width_ratios=(3, 2, 3))
    figure.suptitle(f"{report.recipe}: {report.verdict} to {report.new.model}", fontsize=11)
    _draw_metrics(metrics, report.metrics)
    _draw_differences(differences, report)
    _draw_scores(scores, report)
    return figure


def _draw_metrics(axes: Axes, metrics: dict[str, Comparison]) -> None:
    for place, one in enumerate(metrics.values()):
        _draw_interval(axes, one.old, place - 0.13, OLD_COLOUR, "o", "old" if not place else None)
        _draw_interval(axes, one.new, place + 0.13, NEW_COLOUR, "s", "new" if not place else None)
    _name_rows(axes, list(metrics))
    axes.set_title("mean over queries, 95 %", fontsize=9)
    axes.legend(fontsize=8, frameon=False)


def _draw_differences(axes: Axes, report: GateReport) -> None:
    for place, compared in enumerate(report.metrics.values()):
        _draw_interval(axes, compared.difference, place, NEW_COLOUR, "D", None)
    axes.axvline(0, color=OLD_COLOUR, linewidth=1)
    for one in report.findings:
        if one.name == "ndcg@10" and one.limit is not None:
            ends = [one.limit, one.limit]
            axes.plot(ends, [-0.4, 0.4], color=LIMIT_COLOUR, linestyle="--", label="limit")
            axes.legend(fontsize=8, frameon=False)
    _name_rows(axes, list(report.metrics))
    axes.set_title("new - old, 95 %", fontsize=9)


def _draw_scores(axes: Axes, report: GateReport) -> None:
    """Boxes of the quantiles that were measured: 5, 25, 50, 75, 95 %."""
    axes.set_title("cosine of the first 1 and 10 documents", fontsize=9)
    if report.drift is None:
        return
    names = ["first, old", "first, new", "10, old", "10, new"]
    found = report.drift.first_scores, report.drift.top_scores
    quantiles = [one for both in found for one in (both.old, both.new)]
    keys = ("whislo", "q1", "med", "q3", "whishi")
    boxes = axes.bxp(
        [{**dict(zip(keys, one, strict=True)), "fliers": []} for one in quantiles],
        orientation="horizontal",
        positions=range(len(names)),
        patch_artist=True,
        widths=0.5,
        medianprops={"color": "black"},
    )
    for place, box in enumerate(boxes["boxes"]):
        box.set_facecolor(NEW_COLOUR if place % 2 else OLD_COLOUR)
    _name_rows(axes, names)
    shown = ", ".join(f"{one:.0%}" for one in QUANTILES)
    axes.set_xlabel(f"quantiles {shown}", fontsize=8)


def _draw_interval(
    axes: Axes, one: Interval, place: float, colour: str, marker: str, label: str | None
) -> None:
    axes.plot([one.low, one.high], [place, place], color=colour, linewidth=2)
    axes.plot(one.mean, place, marker, color=colour, label=label, markersize=5)


def _name_rows(axes: Axes, names: list[str]) -> None:
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.tick_params(axis="x", labelsize=8)
    axes.invert_yaxis()
