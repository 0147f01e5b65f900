"""The report of a corpus: how much it holds, how long its texts are, what repeats."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from embedding_core.plurals import counted
from embedding_core.reports.report import LINES_SHOWN, Report, table, text_block
from embedding_core.runs.inputs.lengths import LengthSummary
from embedding_core.runs.inputs.tallies import Figures, Statistics

BAR_CHARACTERS = 40
NAME_CHARACTERS = 48
COLUMNS = ("documents", "chunks", "tokens", "median", "99 %", "longest", "left out", "repeats")


@dataclass(frozen=True)
class StatisticsView(Report):
    """A corpus in words and columns."""

    record: ClassVar[type] = Statistics
    statistics: Statistics

    def summary(self) -> str:
        statistics, overall = self.statistics, self.statistics.whole
        files, in_source = counted(statistics.files, "file"), statistics.files_in_source
        if in_source is not None and in_source != statistics.files:
            files = f"{statistics.files:,} of {counted(in_source, 'file')}"
        records = statistics.sample_records
        sample = "" if records is None else f" (a sample of {counted(records, 'record')} at most)"
        return (
            f"{statistics.origin} of {statistics.recipe}: {files}, "
            f"{counted(overall.documents, 'document')}, {counted(overall.chunks, 'chunk')}, "
            f"{counted(overall.tokens, 'token')}{sample}"
        )

    def lines(self) -> list[str]:
        return [self.summary(), *_whole_lines(self.statistics.whole), *self._group_lines()]

    def data(self) -> dict[str, Any]:
        return asdict(self.statistics)

    def markdown(self) -> str:
        """The figures overall, and a table of the groups."""
        groups = [(group.name, *_cells(group)) for group in self.statistics.groups]
        heading = [self.summary(), *_whole_lines(self.statistics.whole)]
        return "\n\n".join(
            [
                f"# Corpus of {self.statistics.recipe}",
                text_block(heading),
                table((self.statistics.by, *COLUMNS), groups[:LINES_SHOWN]),
            ]
        )

    def _group_lines(self) -> Iterator[str]:
        """The largest groups in columns; nothing where there is only one."""
        groups = self.statistics.groups
        if len(groups) < 2:
            return
        rows: list[tuple[str, ...]] = [(self.statistics.by, *COLUMNS)]
        rows += [(_short(group.name), *_cells(group)) for group in groups[:LINES_SHOWN]]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for name, *cells in rows:
            columns = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
            yield "  ".join([name.ljust(widths[0]), *columns])
        if len(groups) > LINES_SHOWN:
            yield f"… and {len(groups) - LINES_SHOWN:,} more (all with --json)"


def _whole_lines(figures: Figures) -> Iterator[str]:
    yield f"rejects: {_counted(figures.reasons) or 'none'}"
    repeats = f"{figures.duplicate_chunks:,} of {counted(figures.chunks, 'chunk')}"
    if figures.document_lengths is not None:
        documents = counted(figures.documents, "document")
        repeats = f"{figures.duplicate_documents:,} of {documents}, {repeats}"
    yield f"repeats: {repeats} have the text of an earlier one"
    if figures.languages:
        yield f"languages: {_counted(figures.languages)}"
    for unit, lengths in (
        ("documents", figures.document_lengths),
        ("chunks", figures.chunk_lengths),
    ):
        if lengths is not None:
            yield from _length_lines(unit, lengths)


def _length_lines(unit: str, lengths: LengthSummary) -> Iterator[str]:
    percentiles = " · ".join(f"{share} % ≤ {n:,}" for share, n in lengths.percentiles.items())
    yield (
        f"tokens of {unit}: {lengths.shortest:,} to {lengths.longest:,}, mean "
        f"{lengths.mean:,.1f} · {percentiles}"
    )
    most = max(bar.count for bar in lengths.histogram)
    names = [f"{bar.shortest:,} to {bar.longest:,}" for bar in lengths.histogram]
    width = max(map(len, names))
    for name, bar in zip(names, lengths.histogram, strict=True):
        drawn = "█" * math.ceil(BAR_CHARACTERS * bar.count / most)  # no text goes unseen
        yield f"  {name.rjust(width)} │{drawn} {bar.count:,}"


def _cells(group: Figures) -> Sequence[str]:
    lengths = group.document_lengths or group.chunk_lengths
    middle = lengths.percentiles if lengths is not None else {}
    longest = lengths.longest if lengths is not None else 0
    repeats = group.duplicate_documents
    if group.document_lengths is None:
        repeats = group.duplicate_chunks
    numbers = (
        group.documents, group.chunks, group.tokens, middle.get("50", 0), middle.get("99", 0),
        longest, group.rejected + group.dropped, repeats,
    )  # fmt: skip
    return [f"{number:,}" for number in numbers]


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{n:,} {name}" for name, n in counts.items())


def _short(name: str) -> str:
    """A name in one line; of a long one the end, which tells files apart."""
    flat = " ".join(name.split()) or "''"
    return flat if len(flat) <= NAME_CHARACTERS else f"…{flat[1 - NAME_CHARACTERS :]}"


REPORT = StatisticsView
