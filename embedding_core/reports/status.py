"""The report of a table's status: its spaces, ledger, rejects, indexes and last runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from embedding_core.identity import SHOWN_DIGITS
from embedding_core.lake.spaces.vector_columns import VectorColumn
from embedding_core.plurals import counted
from embedding_core.reports.maintenance import index_line
from embedding_core.reports.releases import release_line
from embedding_core.reports.report import Report, stage_words
from embedding_core.runs.table_status import FileLine, RejectLine, Status

RETIRED_SHOWN = 3
"""Retired spaces in the lines; `embedlake releases` lists all."""
TEXT_SHOWN = 120
"""Characters of a rejected text in its line; `--json` gives all."""


@dataclass(frozen=True)
class StatusView(Report):
    """A table's status in words, with the lists that were asked for."""

    record: ClassVar[type] = Status
    status: Status
    files: Sequence[FileLine] | None = None
    rejects: Sequence[RejectLine] | None = None

    def summary(self) -> str:
        return (
            f"table {self.status.table} · version {self.status.version} · "
            f"{counted(self.status.rows, 'row')} from {counted(self.status.files, 'file')} in "
            f"{counted(self.status.fragments, 'fragment')}"
        )

    def lines(self) -> list[str]:
        return [
            self.summary(),
            f"recipe: {self.status.recipe}",
            *self._space_lines(),
            *self._count_lines(),
            *self._index_lines(),
            *self._run_lines(),
            *map(_file_line, self.files or ()),
            *map(_reject_line, self.rejects or ()),
        ]

    def data(self) -> dict[str, Any]:
        data = asdict(self.status)
        if self.files is not None:
            data["file_list"] = [asdict(file) for file in self.files]
        if self.rejects is not None:
            data["reject_list"] = [asdict(reject) for reject in self.rejects]
        return data

    def _space_lines(self) -> list[str]:
        space = self.status.space
        return [
            f"space in service: {self.status.space_id[:SHOWN_DIGITS]} · {space['model']} · "
            f"{counted(space['dim'], 'dimension')} · {counted(space['max_tokens'], 'token')} · "
            f"{space['pooling']} pooling",
            *map(_other_space_line, self.status.spaces[1:]),
            *(
                f"space retired: {release_line(release)}"
                for release in self.status.retired[:RETIRED_SHOWN]
            ),
        ]

    def _count_lines(self) -> list[str]:
        ledger = ", ".join(f"{n:,} {name}" for name, n in self.status.ledger.items())
        rejects = ", ".join(f"{n:,} {reason}" for reason, n in self.status.rejects.items())
        return [f"ledger: {ledger}", f"rejects: {rejects or 'none'}"]

    def _index_lines(self) -> list[str]:
        index = self.status.vector_index
        return [
            *([index_line(index)] if index is not None else []),
            *(
                f"index {name}: {counted(n, 'row')} not covered yet"
                for name, n in self.status.unindexed_rows.items()
            ),
        ]

    def _run_lines(self) -> list[str]:
        return [
            f"run {run.run_id[:SHOWN_DIGITS]} · {run.finished_at} · {counted(run.files, 'file')} · "
            f"{counted(run.chunks, 'chunk')} · {stage_words(run.stages)}"
            + ("" if run.cost is None else f" · cost {run.cost:,.4f}")
            for run in self.status.runs
        ]


def _other_space_line(space: VectorColumn) -> str:
    """A space that is not in service."""
    filled = "every row" if not space.missing_rows else f"{space.filled_share:.1%} of the rows"
    since = f", in service until {space.served_until}" if space.served_until else ""
    return (
        f"space {space.state}: {space.space_id[:SHOWN_DIGITS]} · {space.model} · "
        f"{counted(space.dim, 'dimension')} · {filled} in column {space.column}{since}"
    )


def _file_line(file: FileLine) -> str:
    return (
        f"file {file.source_uri}: {counted(file.rows, 'row')}, "
        f"{counted(file.documents, 'document')}, "
        f"{counted(file.chunks, 'chunk')} = {file.embedded:,} embedded + {file.reused:,} reused + "
        f"{file.dropped:,} dropped + {file.failed:,} failed, {file.rejected:,} rejected, "
        f"{counted(file.duplicates, 'duplicate')}, {file.left_out:,} left out by choice"
    )


def _reject_line(reject: RejectLine) -> str:
    position = f" position {reject.position}" if reject.position is not None else ""
    doc_id = f" id {reject.doc_id!r}" if reject.doc_id is not None else ""
    chunk = f" chunk {reject.chunk_index}" if reject.chunk_index is not None else ""
    n_tokens = f" ({counted(reject.n_tokens, 'token')})" if reject.n_tokens is not None else ""
    text = f": {_beginning(reject.text)!r}" if reject.text is not None else ""
    return (
        f"reject {reject.source_uri}{position}{doc_id}{chunk}{n_tokens}: {reject.reason}: "
        f"{reject.detail}{text}"
    )


def _beginning(text: str) -> str:
    return text if len(text) <= TEXT_SHOWN else f"{text[:TEXT_SHOWN]}…"


REPORT = StatusView
