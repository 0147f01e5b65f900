"""The report of an export: what was written, and where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from embedding_core.identity import SHOWN_DIGITS
from embedding_core.plurals import counted
from embedding_core.reports.report import Report, ended_data, text_block
from embedding_core.runs.exchange.exporting import ExportReport
from embedding_core.runs.outcome import Outcome


@dataclass(frozen=True)
class ExportView(Report):
    """An export in words."""

    record: ClassVar[type] = ExportReport
    export: ExportReport

    @property
    def outcome(self) -> Outcome:
        return self.export.outcome

    def summary(self) -> str:
        done = self.export
        return (
            f"done: {counted(done.rows, 'row')} of version {done.table_version} of {done.recipe} "
            f"to {done.destination} as {done.to}, {counted(done.size_bytes, 'byte')} in "
            f"{done.seconds:.1f} s"
        )

    def lines(self) -> list[str]:
        done = self.export
        shards = counted(done.shards, "shard")
        if done.folders:
            shards += f" in {counted(done.folders, 'folder')}"
        if done.shards_written < done.shards:
            shards += f", {done.shards - done.shards_written:,} of them complete before"
        files = f"{counted(done.rejects, 'reject')}, {counted(done.files, 'file')}"
        lines = [self.summary(), f"{shards}, {files}"]
        if done.space_id is not None:
            lines.append(f"space {done.space_id[:SHOWN_DIGITS]}")
        return [*lines, f"manifest.json has the digests; its own: sha256 {done.manifest_sha256}"]

    def data(self) -> dict[str, Any]:
        return ended_data(self, self.export)

    def markdown(self) -> str:
        return f"# Export of {self.export.recipe}\n\n{text_block(self.lines())}"


REPORT = ExportView
