"""The report of a whole table: its figures, its history and its vectors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

from embedding_core.identity import SHOWN_DIGITS
from embedding_core.plurals import counted
from embedding_core.records import StageSeconds
from embedding_core.reports.maintenance import index_line
from embedding_core.reports.pages.table_page import figures, reject_lines
from embedding_core.reports.releases import history_lines
from embedding_core.reports.report import LINES_SHOWN, Report, ended_data, table, text_block
from embedding_core.runs.look.history import RunWork
from embedding_core.runs.look.overview import Overview
from embedding_core.runs.look.vector_figures import Excerpt, VectorFigures

TEXT_SHOWN = 100
"""Characters of a text in a cell."""


@dataclass(frozen=True)
class OverviewView(Report):
    """A table in words; ``pages.table_page`` makes the page of it, ``look.picture`` a picture."""

    record: ClassVar[type] = Overview
    report: Overview
    page: str | None = None
    """Where the page was written."""

    def summary(self) -> str:
        report = self.report
        explained = f"; {report.problem}"
        if report.vectors is not None:
            first = sum(report.vectors.explained[:2])
            explained = (
                f"; {counted(report.vectors.rows, 'point')}, two components explain {first:.1%}, "
                f"{report.vectors.n_alike:,} near-duplicate pairs"
            )
        figures = report.statistics.whole
        return (
            f"{report.recipe}: {counted(figures.documents, 'document')}, "
            f"{counted(figures.chunks, 'chunk')}, "
            f"{counted(figures.tokens, 'token')} in version {report.version}{explained}"
        )

    def lines(self) -> list[str]:
        report = self.report
        return [
            self.summary(),
            *(f"left out: {line.count:,} {line.reason}: {line.action}" for line in self._rejects()),
            *([index_line(report.index)] if report.index is not None else []),
            *([f"page: {self.page}"] if self.page is not None else []),
        ]

    def data(self) -> dict[str, Any]:
        """The record without the points of the map, which ``embedlake map`` writes."""
        data = ended_data(self, self.report)
        if data["vectors"] is not None:
            del data["vectors"]["points"]
        return data | {"page": self.page}

    def markdown(self) -> str:
        report, vectors = self.report, self.report.vectors
        blocks = [
            f"# Report of {report.recipe}",
            self.summary(),
            *([f"Page: `{self.page}`"] if self.page is not None else []),
            table(("figure", "value"), figures(report)),
            *self._lengths(),
            "## Left out",
            table(
                ("reason", "rows", "meaning", "what to do"),
                [
                    (line.reason, f"{line.count:,}", line.meaning, line.action)
                    for line in self._rejects()
                ],
            ),
            "## Runs",
            table(RUN_COLUMNS, [self._run(run) for run in reversed(report.history)]),
            "## Index and releases",
            index_line(report.index) if report.index else "no vector index: searches are exact",
            text_block(history_lines(report.releases[:LINES_SHOWN])),
        ]
        return "\n\n".join([*blocks, *(_vector_blocks(vectors) if vectors is not None else [])])

    def _rejects(self) -> list[Any]:
        return list(reject_lines(self.report))

    def _lengths(self) -> Iterator[str]:
        lengths = self.report.statistics.whole.chunk_lengths
        if lengths is not None:
            bins = [
                (f"{bin_.shortest:,} to {bin_.longest:,}", f"{bin_.count:,}")
                for bin_ in lengths.histogram
            ]
            yield table(("tokens", "chunks"), bins)

    def _run(self, run: RunWork) -> tuple[str, ...]:
        rate, cost = run.tokens_per_second, run.cost_at(self.report.price_per_hour)
        return (
            run.finished_at,
            run.run_id[:SHOWN_DIGITS],
            f"{run.files:,}",
            f"{run.embedded:,}",
            f"{run.tokens:,}",
            "" if rate is None else f"{rate:,.0f}",
            *(f"{seconds:,.1f}" for seconds in asdict(run.stages).values()),
            "" if cost is None else f"{cost:,.4f}",
        )


RUN_COLUMNS = (
    "ended", "run", "files", "embedded", "tokens", "tokens/s",
    *(f"{stage.name}, s" for stage in fields(StageSeconds)), "cost",
)  # fmt: skip


def _vector_blocks(vectors: VectorFigures) -> list[str]:
    shares = [(str(n), f"{share:.1%}") for n, share in enumerate(vectors.explained, start=1)]
    extremes = [
        (str(component.number), end, f"{row.value:+.3f}", *_cells(row))
        for component in vectors.components
        for end, rows in (("lowest", component.lowest), ("highest", component.highest))
        for row in rows
    ]
    names = [str(component.number) for component in vectors.components]
    fields = list(vectors.components[0].associations) if vectors.components else []
    associations = [
        (field, *(_shown(component.associations[field]) for component in vectors.components))
        for field in fields
    ]
    nearest = [
        (example.row.doc_id, f"{other.value:.3f}", *_cells(other))
        for example in vectors.neighbours
        for other in example.nearest
    ]
    alike = [
        (f"{pair.cosine:.4f}", *_cells(pair.first), *_cells(pair.second)) for pair in vectors.alike
    ]
    return [
        "## Explained variance",
        table(("component", "share"), shares),
        "## Components and fields",
        table(("field", *names), associations),
        "## Extremes",
        table(("component", "end", "value", "document", "text"), extremes),
        "## Nearest neighbours",
        table(("of", "cosine", "document", "text"), nearest),
        f"## Near-duplicates: {counted(vectors.n_alike, 'pair')} from a cosine of "
        f"{vectors.least_cosine}",
        table(("cosine", "document", "text", "document", "text"), alike),
    ]


def _cells(row: Excerpt) -> tuple[str, str]:
    flat = " ".join(row.text.split())
    return row.doc_id, flat if len(flat) <= TEXT_SHOWN else f"{flat[:TEXT_SHOWN]}…"


def _shown(association: float | None) -> str:
    return "–" if association is None else f"{association:.2f}"


REPORT = OverviewView
