"""The report of a release: one change of the space that a table serves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from embedding_core.identity import SHOWN_DIGITS
from embedding_core.lake.spaces.switching import Release
from embedding_core.reports.report import Report


@dataclass(frozen=True)
class ReleaseView(Report):
    """A release in words, in a single line."""

    record: ClassVar[type] = Release
    release: Release

    def summary(self) -> str:
        return release_line(self.release)

    def lines(self) -> list[str]:
        return [release_line(self.release)]

    def data(self) -> dict[str, Any]:
        return asdict(self.release)


def release_line(release: Release) -> str:
    """When what was switched, by whom and in which run."""
    old = f"{release.from_space[:SHOWN_DIGITS]} ({release.from_model})"
    change = f"retire of {old}"
    if release.to_space is not None:
        new = f"{release.to_space[:SHOWN_DIGITS]} ({release.to_model})"
        change = f"{release.action}: {new} in place of {old}"
    run = f" · run {release.run_id[:SHOWN_DIGITS]}" if release.run_id else ""
    return f"{release.at} · {change} · by {release.by}{run}"


def history_lines(releases: Sequence[Release]) -> list[str]:
    """All releases of a table, each in a line."""
    return [release_line(release) for release in releases] or ["no space was ever switched"]


REPORT = ReleaseView
