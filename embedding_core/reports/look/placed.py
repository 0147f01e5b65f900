"""The report of a map: where it was written, and how to look at it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Any, ClassVar

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
            f"done: {done.rows:,} rows of version {done.table_version} of {done.recipe} placed by "
            f"{done.method} in {done.out}, {done.size_bytes:,} bytes in {done.seconds:.1f} s"
        )

    def lines(self) -> list[str]:
        done = self.map
        lines = [self.summary(), f"the plane was fitted to {done.fitted_rows:,} rows"]
        if done.left_out:
            lines.append(f"left out: {done.left_out:,} rows without a finite vector")
        return [*lines, f"to look at it: uvx {shlex.join(viewer_arguments(done))}"]

    def data(self) -> dict[str, Any]:
        return ended_data(self, self.map)


def viewer_arguments(done: MapReport) -> list[str]:
    """The command that shows a map in a browser."""
    named = ("--text", done.text, "--x", done.x, "--y", done.y)
    return ["embedding-atlas", done.out, *named]


REPORT = MapView
