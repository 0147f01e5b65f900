"""The report of a maintenance: what became of each table, and what is left for the next time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from embedding_core.lake.index.vector import IndexReport
from embedding_core.plurals import counted
from embedding_core.reports.releases import release_line
from embedding_core.reports.report import Report, ended_data, text_block
from embedding_core.runs.maintenance import MaintenanceReport
from embedding_core.runs.outcome import Outcome


@dataclass(frozen=True)
class MaintenanceView(Report):
    """A maintenance in words."""

    record: ClassVar[type] = MaintenanceReport
    maintenance: MaintenanceReport

    @property
    def outcome(self) -> Outcome:
        return self.maintenance.outcome

    def summary(self) -> str:
        done = self.maintenance
        merged = sum(table.fragments_merged for table in done.tables)
        versions = sum(table.versions_removed for table in done.tables)
        ended = f"unfinished, {counted(len(done.problems), 'problem')}" if done.problems else "done"
        return (
            f"{ended}: {counted(merged, 'fragment')} merged, "
            f"{counted(versions, 'version')} removed from "
            f"{counted(len(done.tables), 'table')} of {done.recipe} in {done.seconds:.1f} s"
        )

    def lines(self) -> list[str]:
        done = self.maintenance
        lines = []
        for table in done.tables:
            before, after = table.before, table.after
            lines.append(
                f"maintained {table.table}: {before.fragments:,} to "
                f"{counted(after.fragments, 'fragment')}, {before.versions:,} to "
                f"{counted(after.versions, 'version')}, {before.size_bytes:,} to "
                f"{counted(after.size_bytes, 'byte')}"
            )
            lines += [
                f"  {name} covers {share:.1%} of the rows"
                for name, share in after.indexed_share.items()
                if share < 1
            ]
        lines += [release_line(release) for release in done.retired]
        if done.orphans_removed:
            lines.append(
                f"removed {counted(done.orphans_removed, 'file')} of runs that died long ago"
            )
        return [*lines, *(f"NOT DONE, for the next time: {problem}" for problem in done.problems)]

    def data(self) -> dict[str, Any]:
        return ended_data(self, self.maintenance)

    def markdown(self) -> str:
        return f"# Maintenance of {self.maintenance.recipe}\n\n{text_block(self.lines())}"


def index_line(index: IndexReport) -> str:
    """A vector index, and the share of the true neighbours that it finds."""
    return (
        f"index {index.name}: recall@10 {index.recall:.3f} measured against exact search, "
        f"{index.kind}, nprobes {index.nprobes}, refine factor {index.refine_factor}"
    )


REPORT = MaintenanceView
