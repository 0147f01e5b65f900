"""The report of a map: where it was written, and how to look at it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Any, ClassVar

from embedding_core.plurals import counted
from embedding_core.reports.report import Report, ended_data
from embedding_core.runs.look.placed_rows import MapReport


@dataclass(frozen=True)
class MapView(Report):
    """A map in words."""

    record: ClassVar[type] = MapReport
    map: MapReport

    def summary(self) -> str:
        done = self.map
        return (
            f"done: {counted(done.rows, 'row')} of version {done.table_version} of {done.recipe} "
            f"placed by {done.method} in {done.out}, {counted(done.size_bytes, 'byte')} in "
            f"{done.seconds:.1f} s"
        )

    def lines(self) -> list[str]:
        done = self.map
        lines = [self.summary(), f"the plane was fitted to {counted(done.fitted_rows, 'row')}"]
        if done.left_out:
            lines.append(f"left out: {counted(done.left_out, 'row')} without a finite vector")
        return [*lines, f"to look at it: uvx {shlex.join(viewer_arguments(done))}"]

    def data(self) -> dict[str, Any]:
        return ended_data(self, self.map)


def viewer_arguments(done: MapReport) -> list[str]:
    """The command that shows a map in a browser."""
    named = ("--text", done.text, "--x", done.x, "--y", done.y)
    return ["embedding-atlas", done.out, *named]


REPORT = MapView
