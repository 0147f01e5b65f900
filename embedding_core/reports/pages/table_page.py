"""The page of a table's report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from embedding_core import __version__
from embedding_core.identity import SHOWN_DIGITS
from embedding_core.reasons import ALL
from embedding_core.records import StageSeconds
from embedding_core.reports.pages.page import clean, data_block, page
from embedding_core.reports.releases import gate_words
from embedding_core.reports.report import stage_words
from embedding_core.runs.look.fields import Grouped
from embedding_core.runs.look.overview import Overview
from embedding_core.runs.look.vector_figures import Excerpt, MapPoints, VectorFigures

SOURCES_SHOWN = 10
ACTIONS = {
    "next run": "every run tries it again",
    "other device": "embedlake retry-rejected RECIPE, on a larger device",
    "edit": "correct the file or the recipe, then run again",
}
"""What to do about a reject, by what heals it."""
METHODS = {
    "pca": "The plane of the first two principal components, which explain {:.1%} of the variance.",
    "tsne": "Placed by t-SNE: who is near is alike; distances between groups mean little.",
    "umap": "Placed by UMAP: who is near is alike; distances between groups mean little.",
}


@dataclass(frozen=True, slots=True)
class RejectLine:
    """A reason, and what to do about it."""

    reason: str
    count: int
    meaning: str
    action: str


def table_page(report: Overview) -> str:
    """The whole page: one file that opens offline."""
    vectors, lengths = report.vectors, report.statistics.whole.chunk_lengths
    return page(
        "table.html",
        styles=("map.css",),
        scripts=("map.js",) if vectors is not None else (),
        report=report,
        vectors=vectors,
        contents=list(_contents(vectors)),
        figures=figures(report),
        lengths=lengths,
        most_in_a_bin=max((bin_.count for bin_ in lengths.histogram), default=1) if lengths else 1,
        sources=report.statistics.groups[:SOURCES_SHOWN],
        rejects=list(reject_lines(report)),
        runs=list(_runs(report)),
        gate_words=gate_words,
        stages=[stage.name for stage in fields(StageSeconds)],
        has_costs=any(run.cost_at(report.price_per_hour) is not None for run in report.history),
        method=_method(vectors) if vectors else "",
        legend=_legend(vectors.points) if vectors else [],
        scree=list(_scree(vectors)) if vectors else [],
        ends=_ends(vectors) if vectors else [],
        points=data_block("points", _data(vectors.points)) if vectors else None,
        made_by=__version__,
    )


def figures(report: Overview) -> list[tuple[str, str]]:
    """The figures that sum a table up, by name."""
    figures = report.statistics.whole
    numbers = {
        "documents": figures.documents,
        "chunks": figures.chunks,
        "tokens": figures.tokens,
        "sources": report.statistics.files,
        "left out": figures.rejected + figures.dropped,
        "repeated texts": figures.duplicate_chunks,
    }
    return [(name, f"{number:,}") for name, number in numbers.items()]


def reject_lines(report: Overview) -> Iterator[RejectLine]:
    """Every reason for which something was left out, the most frequent first."""
    for name, count in report.statistics.whole.reasons.items():
        reason = ALL.get(name)
        if reason is None:  # of a plugin's format
            yield RejectLine(name, count, "", ACTIONS["edit"])
        else:
            choice = {"note": "nothing", "choice": "nothing: the recipe chose it"}
            action = choice.get(reason.weight, ACTIONS[reason.heals])
            yield RejectLine(name, count, reason.meaning, action)


def _contents(vectors: VectorFigures | None) -> Iterator[tuple[str, str]]:
    yield from (
        ("corpus", "Corpus"),
        ("rejects", "Left out"),
        ("runs", "Runs"),
        ("search-index", "Index"),
        ("releases", "Releases"),
    )
    if vectors is not None:
        yield from (
            ("vectors", "Map"),
            ("components", "Components"),
            ("neighbours", "Nearest neighbours"),
            ("alike", "Near-duplicates"),
        )


def _runs(report: Overview) -> Iterator[Mapping[str, Any]]:
    """Rows of the table of runs, the newest first; bars are relative to the longest run."""
    longest = max((run.stages.work for run in report.history), default=0.0) or 1.0
    for run in reversed(report.history):
        rate, stages = run.tokens_per_second, run.stages
        cost, cutting = run.cost_at(report.price_per_hour), stages.read + stages.chunk
        yield asdict(run) | {
            "run_id": run.run_id[:SHOWN_DIGITS],
            "ended": run.finished_at[:16].replace("T", " "),
            "rate": "–" if rate is None else f"{rate:,.0f}",
            "cost": "–" if cost is None else f"{cost:,.4f}",
            "chunk_share": cutting / longest,
            "model_share": (stages.work - cutting) / longest,
            "label": stage_words(stages),
        }


def _method(vectors: VectorFigures) -> str:
    """A sentence on what distances on the map mean."""
    sentence = METHODS.get(vectors.method, f"Placed by {vectors.method}.")
    return sentence.format(sum(vectors.explained[:2]))


def _legend(points: MapPoints) -> list[tuple[str, str, int]]:
    """Style, label and number of points of each group."""
    colours = points.colours
    if colours is None:
        return []
    counts = [0] * len(colours.labels)
    for number in colours.numbers:
        counts[number] += 1
    return list(zip(_styles(colours), colours.labels, counts, strict=True))


def _styles(colours: Grouped) -> list[str]:
    kind = "s" if colours.is_ordered else "c"
    return [
        f"{kind}{number}" if number < colours.n_named else "other"
        for number in range(len(colours.labels))
    ]


def _ends(vectors: VectorFigures) -> list[list[tuple[Excerpt, Excerpt]]]:
    """Per component the lowest and the highest row, the next lowest and highest, and so on."""
    return [
        list(zip(component.lowest, component.highest, strict=True))
        for component in vectors.components
    ]


def _scree(vectors: VectorFigures) -> Iterator[Mapping[str, float]]:
    together = 0.0
    for share in vectors.explained:
        together += share
        yield {"share": share, "together": together}


def _data(points: MapPoints) -> Mapping[str, Any]:
    """What the map's script reads."""
    colours = points.colours
    return {
        "x": [float(f"{value:.5g}") for value in points.x],
        "y": [float(f"{value:.5g}") for value in points.y],
        "doc": [clean(doc_id) for doc_id in points.doc_ids],
        "text": [clean(text) for text in points.texts],
        "field": colours.field if colours else "",
        "labels": [clean(label) for label in colours.labels] if colours else [],
        "group": list(colours.numbers) if colours else [],
    }
