"""The injections of an experiment that were made, a line each, and the result that they add up to.

A command that was ended goes on with the injections that have no line. Several processes append.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.faults.injections import Point, Tally

RULE_OF_THREE = 3
"""Of N injections without a violation follows a share below 3/N, with 95 % certainty."""


@dataclass(frozen=True, slots=True)
class Journal:
    """The file of an experiment's injections."""

    path: Path

    def add(self, point: Point, tally: Tally, seconds: float, commit: str) -> None:
        """Append the line of an injection, all at once."""
        line = {
            "kind": point.kind,
            "number": point.number,
            "injections": tally.injections,
            "violations": tally.violations,
            "endings": tally.endings,
            "counts": tally.counts,
            "seconds": round(seconds, 2),
            "commit": commit,
        }
        with self.path.open("ab", buffering=0) as file:
            file.write(json.dumps(line).encode() + b"\n")

    def lines(self) -> Iterator[dict[str, Any]]:
        """The lines; what a killed process wrote half is no line."""
        if self.path.exists():
            for line in self.path.read_text().splitlines():
                with suppress(ValueError):
                    yield json.loads(line)

    def points(self) -> set[Point]:
        """The points that were hit."""
        return {Point(line["kind"], line["number"]) for line in self.lines()}

    def clear(self) -> None:
        """Begin again."""
        self.path.unlink(missing_ok=True)


def result(journal: Journal, about: Mapping[str, Any], kind: str | None = None) -> dict[str, Any]:
    """What the injections of a journal add up to, after ``about`` the experiment.

    ``kind``: of the injections that count; None: all. ``share_at_most``: of injections that would
    violate what must hold, at 95 %.
    """
    lines = [line for line in journal.lines() if kind in (None, line["kind"])]
    total, seconds = Tally(), 0.0
    for line in lines:
        where = f"{line['kind']} {line['number']}"
        total.add(
            Tally(
                line["injections"],
                [f"{where}: {violation}" for violation in line["violations"]],
                Counter(line["endings"]),
                Counter(line["counts"]),
            )
        )
        seconds += line["seconds"]
    n = total.injections
    return {
        **about,
        "commits": sorted({line["commit"] for line in lines}),
        "by_kind": dict(sorted(Counter(line["kind"] for line in lines).items())),
        "injections": n,
        "violations": total.violations,
        "share_at_most": round(RULE_OF_THREE / n, 4) if n and not total.violations else None,
        "endings": dict(sorted(total.endings.items())),
        "counts": dict(sorted(total.counts.items())),
        "seconds": round(seconds),
    }
