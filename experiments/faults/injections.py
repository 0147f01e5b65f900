"""What an experiment is: points at which a fault can be injected, and what came of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

from experiments.faults.child import Ending
from experiments.faults.stage import Stage


@dataclass(frozen=True, slots=True, order=True)
class Point:
    """Where a fault is injected."""

    kind: str
    """What is injected, in words that a file of results can hold."""
    number: int
    """From 1: the change or the request that is hit, or a seed."""


@dataclass(slots=True)
class Tally:
    """What came of injections."""

    injections: int = 0
    violations: list[str] = field(default_factory=list)
    endings: Counter[str] = field(default_factory=Counter)
    """How the runs that were hit ended."""
    counts: Counter[str] = field(default_factory=Counter)
    """What else was counted."""

    def injected(self, ending: Ending) -> None:
        """Count an injection, and how the run that it hit ended; it must end."""
        self.injections += 1
        self.endings[ending.kind] += 1
        if ending.is_hang:
            self.violations.append(ending.error)

    def expect(self, what: str, ending: Ending) -> bool:
        """Whether a check after an injection passed; note a violation when it did not."""
        if ending.status:
            self.violations.append(f"{what}: {ending.error or ending.kind}")
        return not ending.status

    def add(self, other: Tally) -> None:
        """Add what came of other injections."""
        self.injections += other.injections
        self.violations += other.violations
        self.endings.update(other.endings)
        self.counts.update(other.counts)


@dataclass(frozen=True, slots=True)
class Experiment:
    """A stage, and the points at which it can be hit."""

    injects: str
    """What is injected, in words for people; likewise the next."""
    must_hold: str
    stage: Stage | None
    """None: each injection makes all it needs."""
    points: Sequence[Point]
    inject: Callable[[Point, Tally], None]
    """Puts the stage back, injects the fault and notes what came of it."""
    is_drawn: bool = False
    """The points are drawn from what nobody can count: moments, bits."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which of the points are hit."""

    most: int | None
    """Of each kind; None: all."""
    seed: int

    def of(self, points: Iterable[Point]) -> list[Point]:
        """Points in an order that the seed draws. A larger ``most`` only adds to them, and so do
        more points."""
        n_chosen = Counter[str]()
        chosen: list[Point] = []
        for point in sorted(points, key=self._rank):
            n_chosen[point.kind] += 1
            if self.most is None or n_chosen[point.kind] <= self.most:
                chosen.append(point)
        return chosen

    def _rank(self, point: Point) -> bytes:
        return blake2b(f"{self.seed} {point.kind} {point.number}".encode()).digest()


def numbered(kind: str, n_points: int) -> list[Point]:
    """The points 1 to ``n_points`` of a kind."""
    return [Point(kind, number) for number in range(1, n_points + 1)]
