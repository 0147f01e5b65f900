"""The picture of a corpus: how long its texts are, and its largest groups; drawn by matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from embedding_core.runs.inputs.lengths import LengthSummary
from embedding_core.runs.inputs.tallies import Statistics

if TYPE_CHECKING:  # half a second to import, so that the functions that draw do it
    from matplotlib.axes import Axes

BAR_COLOUR, LINE_COLOUR = "#1b7fbd", "#5b6770"
GROUPS_DRAWN = 15
NAME_CHARACTERS = 30


def write_corpus_picture(statistics: Statistics, path: Path) -> None:
    """Write the picture, in the format that the name's suffix says."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure  # unlike pyplot, it keeps nothing after the call

    lengths = [
        (f"tokens of {texts}", summary)
        for texts, summary in (
            ("documents", statistics.whole.document_lengths),
            ("chunks", statistics.whole.chunk_lengths),
        )
        if summary is not None
    ]
    figure = Figure(figsize=(4.0 * (len(lengths) + 1), 3.8), layout="constrained")
    axes = figure.subplots(1, len(lengths) + 1, squeeze=False)[0]
    figure.suptitle(f"{statistics.recipe}: {statistics.origin}", fontsize=11)
    for drawing, (title, summary) in zip(axes, lengths, strict=False):
        _draw_lengths(drawing, title, summary)
    _draw_groups(axes[-1], statistics)
    with rc_context({"svg.fonttype": "none"}):  # letters as text: half the size
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def _draw_lengths(axes: Axes, title: str, lengths: LengthSummary) -> None:
    axes.bar(
        range(len(lengths.histogram)),
        [bar.count for bar in lengths.histogram],
        color=BAR_COLOUR,
        width=0.9,
    )
    names = [f"{bar.longest:,}" for bar in lengths.histogram]
    axes.set_xticks(range(len(names)), names, rotation=60, fontsize=8)
    shares = ", ".join(f"{share} % ≤ {n:,}" for share, n in lengths.percentiles.items())
    axes.set_title(f"{title}\n{shares}", fontsize=8)
    axes.set_xlabel("up to", fontsize=8)
    axes.tick_params(axis="y", labelsize=8)


def _draw_groups(axes: Axes, statistics: Statistics) -> None:
    groups = statistics.groups[:GROUPS_DRAWN]
    axes.barh(range(len(groups)), [group.tokens for group in groups], color=LINE_COLOUR)
    # a dollar would begin a formula
    names = [group.name[-NAME_CHARACTERS:].replace("$", r"\$") for group in groups]
    axes.set_yticks(range(len(groups)), names, fontsize=8)
    axes.invert_yaxis()
    axes.set_title(f"tokens by {statistics.by}", fontsize=8)
    axes.tick_params(axis="x", labelsize=8, labelrotation=30)
