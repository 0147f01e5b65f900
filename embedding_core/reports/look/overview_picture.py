"""The picture of a table: its map, lengths, runs and components; drawn by matplotlib."""

from __future__ import annotations

import base64
import io
import warnings
from dataclasses import fields
from operator import add
from typing import TYPE_CHECKING

from embedding_core.records import StageSeconds
from embedding_core.runs.look.fields import Grouped
from embedding_core.runs.look.history import RunWork
from embedding_core.runs.look.overview import Overview
from embedding_core.runs.look.vector_figures import VectorFigures

if TYPE_CHECKING:  # half a second to import, so that the functions that draw do it
    from matplotlib.axes import Axes

COLOURS = (
    "#2b6cb0", "#b45309", "#2f855a", "#c53030", "#6b46c1", "#7b5229", "#b83280", "#0e7490",
    "#6b7110", "#3c366b", "#6f7b87",
)  # fmt: skip
"""The page's colours in light; the last is for all other values."""
ORDERED = ("#7fa8c9", "#4f8ab8", "#2f6fa3", "#215687", "#16406a", "#0c2a4d")
"""For groups of numbers, from small to large."""
LABEL_CHARACTERS = 24
WORK_STAGES = tuple(stage.name for stage in fields(StageSeconds) if stage.name != "wait")
RUNS_OF_ROOM = 8
"""Room for so many runs at least, so that a single one is no wall."""


def overview_picture_uri(report: Overview) -> str:
    """The picture as a ``data:`` URI, which Prefect's page of an image artifact can show."""
    return "data:image/png;base64," + base64.b64encode(overview_picture(report)).decode()


def overview_picture(report: Overview) -> bytes:
    """The picture as PNG; of 5,000 points an SVG would be ten times as large."""
    from matplotlib.figure import Figure  # unlike pyplot, it keeps nothing after the call

    figure = Figure(figsize=(11, 7.5), layout="constrained")
    (plane, lengths), (runs, scree) = figure.subplots(2, 2, width_ratios=(3, 2))
    figure.suptitle(_plain(f"{report.recipe}: version {report.version}"), fontsize=11)
    _draw_map(plane, report.vectors)
    _draw_lengths(lengths, report)
    _draw_runs(runs, report.history)
    _draw_scree(scree, report.vectors)
    buffer = io.BytesIO()
    with warnings.catch_warnings():  # a script that the font lacks is drawn as boxes
        warnings.filterwarnings("ignore", r"Glyph .* missing", UserWarning)
        figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def _draw_map(axes: Axes, vectors: VectorFigures | None) -> None:
    axes.set_title("map of a sample", fontsize=9)
    axes.set_xticks([])
    axes.set_yticks([])
    if vectors is None:
        return
    axes.set_aspect("equal", "datalim")
    points = vectors.points
    if points.colours is None:
        axes.scatter(points.x, points.y, s=4, color=COLOURS[0])
        return
    axes.set_title(_plain(f"map of a sample, by {points.colours.field}"), fontsize=9)
    for group, label in enumerate(points.colours.labels):
        rows = [row for row, number in enumerate(points.colours.numbers) if number == group]
        axes.scatter(
            [points.x[row] for row in rows],
            [points.y[row] for row in rows],
            s=4,
            color=_colour(points.colours, group),
            label=_plain(label[:LABEL_CHARACTERS]),
        )
    axes.legend(fontsize=7, frameon=False, markerscale=2)


def _colour(colours: Grouped, group: int) -> str:
    if group >= colours.n_named:
        return COLOURS[-1]
    return ORDERED[group] if colours.is_ordered else COLOURS[group]


def _draw_lengths(axes: Axes, report: Overview) -> None:
    axes.set_title("tokens of chunks", fontsize=9)
    lengths = report.statistics.whole.chunk_lengths
    if lengths is not None:
        names = [f"{bin_.longest:,}" for bin_ in lengths.histogram]
        counts = [bin_.count for bin_ in lengths.histogram]
        axes.bar(range(len(names)), counts, color=COLOURS[0], width=0.9)
        axes.set_xticks(range(len(names)), names, rotation=60, fontsize=7)
        axes.set_xlabel("up to", fontsize=8)


def _draw_runs(axes: Axes, history: tuple[RunWork, ...]) -> None:
    axes.set_title("seconds of work per run, and tokens per second", fontsize=9)
    places = range(len(history))
    bottom = [0.0] * len(history)
    for number, stage in enumerate(WORK_STAGES):
        seconds = [getattr(run.stages, stage) for run in history]
        if any(seconds):
            axes.bar(places, seconds, bottom=bottom, color=COLOURS[number], label=stage)
        bottom = list(map(add, bottom, seconds))
    axes.set_xlim(-0.6, max(len(history), RUNS_OF_ROOM) - 0.4)
    names = [run.finished_at[5:10] for run in history]
    axes.set_xticks(places, names, rotation=60, fontsize=7)
    rates = axes.twinx()
    rates.plot(places, [run.tokens_per_second or 0.0 for run in history], "o-", color="black")
    rates.set_ylim(bottom=0)
    rates.set_ylabel("tokens/s", fontsize=8)
    if any(bottom):
        axes.legend(fontsize=7, loc="upper right")


def _draw_scree(axes: Axes, vectors: VectorFigures | None) -> None:
    axes.set_title("explained variance", fontsize=9)
    if vectors is not None:
        numbers = range(1, len(vectors.explained) + 1)
        axes.bar(numbers, [100 * share for share in vectors.explained], color=COLOURS[0])
        axes.set_xlabel("component", fontsize=8)
        axes.set_ylabel("%", fontsize=8)


def _plain(text: str) -> str:
    """A text in one line that is no formula: a dollar would begin one."""
    return "".join(char if char.isprintable() else " " for char in text).replace("$", r"\$")
