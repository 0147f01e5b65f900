"""The picture of a gate's report: metrics, their differences and scores, drawn by matplotlib."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING

from embedding_core.quality import QUANTILES, Comparison, Interval
from embedding_core.quality.judgement import GateReport

if TYPE_CHECKING:  # half a second to import, so that the functions that draw do it
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LIMIT_COLOUR = "#b3261e"
OLD_COLOUR, NEW_COLOUR = "#5b6770", "#1b7fbd"
"""They differ in lightness too, for print and for people who see no colours."""


def write_picture(gate: GateReport, path: Path) -> None:
    """Write the picture as SVG."""
    path.write_bytes(_svg(gate))


def picture_uri(gate: GateReport) -> str:
    """The picture as a ``data:`` URI, which Prefect's page of an image artifact can show."""
    return "data:image/svg+xml;base64," + base64.b64encode(_svg(gate)).decode()


def _svg(gate: GateReport) -> bytes:
    from matplotlib import rc_context

    buffer = io.BytesIO()
    with rc_context({"svg.fonttype": "none"}):  # letters as text: half the size
        _figure(gate).savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def _figure(gate: GateReport) -> Figure:
    from matplotlib.figure import Figure  # unlike pyplot, it keeps nothing after the call

    figure = Figure(figsize=(10, 3.6), layout="constrained")
    metrics, differences, scores = figure.subplots(1, 3, width_ratios=(3, 2, 3))
    figure.suptitle(f"{gate.recipe}: {gate.verdict} to {gate.new.model}", fontsize=11)
    _draw_metrics(metrics, gate.metrics)
    _draw_differences(differences, gate)
    _draw_scores(scores, gate)
    return figure


def _draw_metrics(axes: Axes, metrics: dict[str, Comparison]) -> None:
    for row, pair in enumerate(metrics.values()):
        _draw_interval(axes, pair.old, row - 0.13, OLD_COLOUR, "o", "old" if not row else None)
        _draw_interval(axes, pair.new, row + 0.13, NEW_COLOUR, "s", "new" if not row else None)
    _name_rows(axes, list(metrics))
    axes.set_title("mean over queries, 95 %", fontsize=9)
    axes.legend(fontsize=8, frameon=False)


def _draw_differences(axes: Axes, gate: GateReport) -> None:
    for row, pair in enumerate(gate.metrics.values()):
        _draw_interval(axes, pair.difference, row, NEW_COLOUR, "D", None)
    axes.axvline(0, color=OLD_COLOUR, linewidth=1)
    for finding in gate.findings:
        if finding.name == "ndcg@10" and finding.limit is not None:
            ends = [finding.limit, finding.limit]
            axes.plot(ends, [-0.4, 0.4], color=LIMIT_COLOUR, linestyle="--", label="limit")
            axes.legend(fontsize=8, frameon=False)
    _name_rows(axes, list(gate.metrics))
    axes.set_title("new - old, 95 %", fontsize=9)


def _draw_scores(axes: Axes, gate: GateReport) -> None:
    """Draw boxes of the measured quantiles: 5, 25, 50, 75, 95 %."""
    axes.set_title("cosine of the first 1 and 10 documents", fontsize=9)
    if gate.drift is None:
        return
    names = ["first, old", "first, new", "10, old", "10, new"]
    first, top = gate.drift.first_scores, gate.drift.top_scores
    keys = ("whislo", "q1", "med", "q3", "whishi")
    boxes = axes.bxp(
        [
            {**dict(zip(keys, quantiles, strict=True)), "fliers": []}
            for quantiles in (first.old, first.new, top.old, top.new)
        ],
        orientation="horizontal",
        positions=range(len(names)),
        patch_artist=True,
        widths=0.5,
        medianprops={"color": "black"},
    )
    for row, box in enumerate(boxes["boxes"]):
        box.set_facecolor(NEW_COLOUR if row % 2 else OLD_COLOUR)
    _name_rows(axes, names)
    shares = ", ".join(f"{share:.0%}" for share in QUANTILES)
    axes.set_xlabel(f"quantiles {shares}", fontsize=8)


def _draw_interval(
    axes: Axes, interval: Interval, row: float, colour: str, marker: str, label: str | None
) -> None:
    axes.plot([interval.low, interval.high], [row, row], color=colour, linewidth=2)
    axes.plot(interval.mean, row, marker, color=colour, label=label, markersize=5)


def _name_rows(axes: Axes, names: list[str]) -> None:
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.tick_params(axis="x", labelsize=8)
    axes.invert_yaxis()
