"""The report of a release: one change of the space that a table serves, or a refused one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from embedding_core.identity import SHOWN_DIGITS
from embedding_core.lake.spaces.switching import GateAnswer, Release
from embedding_core.plurals import counted
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
    """When what was switched or refused, by whom, in which run, and what the gate said."""
    old = f"{release.from_space[:SHOWN_DIGITS]} ({release.from_model})"
    change = f"retire of {old}"
    if release.to_space is not None:
        new = f"{release.to_space[:SHOWN_DIGITS]} ({release.to_model})"
        change = f"{release.action}: {new} in place of {old}"
    run = f" · run {release.run_id[:SHOWN_DIGITS]}" if release.run_id else ""
    gate = f" · gate: {release.gate.verdict}, {gate_words(release.gate)}" if release.gate else ""
    return f"{release.at} · {change} · by {release.by}{run}{gate}"


def gate_words(gate: GateAnswer) -> str:
    """The figures of a verdict, and what failed."""
    rows = "" if gate.sampled_share is None else f" over {gate.sampled_share:.2%} of the rows"
    failed = "".join(f"; {name}: {sentence}" for name, sentence in gate.failed.items())
    return (
        f"nDCG@10 {gate.old_ndcg:.4f} to {gate.new_ndcg:.4f} "
        f"({gate.difference:+.4f}, 95 % {gate.low:+.4f} to {gate.high:+.4f}) on "
        f"{counted(gate.queries, f'{gate.queries_kind} query')}{rows}{failed}"
    )


def history_lines(releases: Sequence[Release]) -> list[str]:
    """All releases of a table, each in a line."""
    return list(map(release_line, releases)) or ["no space was ever switched or refused"]


REPORT = ReleaseView
