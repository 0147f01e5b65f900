"""Cut a plan into work units: pack small files, slice huge ones, end with smaller packs."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from embedding_core.errors import words
from embedding_core.identity import digest, unit_id
from embedding_core.reasons import FAILED
from embedding_core.recipe import SourceSpec
from embedding_core.records import EmbeddedUnit, Plan, PlannedFile, Reject, WorkUnit
from embedding_core.runs.embed.slices import sliced
from embedding_core.sources import slices

MOST_FILES = 4_096
"""Files of a unit, however small they are: each takes a request to the store and some memory."""


SMALLEST_SHARE = 16
"""A pack is cut no smaller than this part of ``unit_bytes``, since each unit has its own costs."""


def work_units(
    planned: Plan, unit_bytes: int | None, source: SourceSpec | None = None
) -> Iterator[WorkUnit]:
    """The planned files, each exactly once, in units of about ``unit_bytes`` or ``MOST_FILES``.

    With ``source``, a huge file becomes several units, one after the other; without, it is one.
    When ``unit_bytes`` is None, every file is a unit, whatever its size.
    """
    if unit_bytes is None:
        yield from (whole_files([file], planned) for file in planned.files)
        return
    pack: list[PlannedFile] = []
    packed_bytes = 0
    for file in planned.files:
        size_bytes = file.bytes_to_read
        if pack and (packed_bytes + size_bytes > unit_bytes or len(pack) == MOST_FILES):
            yield whole_files(pack, planned)
            pack, packed_bytes = [], 0
        is_sliced = source is not None and file.is_read_whole
        spans = slices(file.file, source, unit_bytes) if source and is_sliced else ()
        if spans:
            unit = whole_files([file], planned)
            yield from (sliced(unit, span) for span in spans)
            continue
        pack.append(file)
        packed_bytes += size_bytes
    if pack:
        yield whole_files(pack, planned)


@dataclass(slots=True)
class WorkerRates:
    """How fast workers embed, by the units that came home."""

    n_bytes: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    """Bytes per second of the slowest unit; 0 before the first."""

    def add(self, result: EmbeddedUnit) -> None:
        """Note a unit; loading a model counts for nothing, since it is loaded once."""
        stages = result.stages
        seconds = stages.tokenise + stages.forward + stages.write
        if not seconds or not (n_bytes := result.unit.size_bytes):
            return
        self.n_bytes += n_bytes
        self.seconds += seconds
        rate = n_bytes / seconds
        self.slowest = min(rate, self.slowest or rate)

    def share_of_slowest(self, n_workers: int) -> float:
        """The share of some work that the slowest worker does while all of them do the work.

        All workers work at the same time, so their mean rate is that of all units together.
        """
        if n_workers == 1:
            return 1.0
        relative = self.slowest * self.seconds / self.n_bytes if self.n_bytes else 1.0
        return relative / n_workers


class WaitingUnits:
    """Units that wait for a worker, in order. The last packs of a plan are cut smaller.

    Nobody chooses which worker takes a unit, and a slow one that takes a large unit at the end
    works on when the others have nothing left to do. So no pack is larger than what the slowest
    worker does while all workers do what waits.
    """

    def __init__(self, planned: Plan, units: Iterable[WorkUnit], unit_bytes: int) -> None:
        self._planned = planned
        self._units = deque(units)
        self._n_bytes = sum(unit.size_bytes for unit in self._units)
        self._least_bytes = unit_bytes / SMALLEST_SHARE

    def __len__(self) -> int:
        return len(self._units)

    def take(
        self, begun: Sequence[WorkUnit], most: int, staged_bytes: int, slowest_share: float
    ) -> list[WorkUnit]:
        """The next units to begin beside those that have begun: ``most`` units with
        ``staged_bytes`` together, or one that is larger, alone."""
        fresh: list[WorkUnit] = []
        n_bytes = sum(unit.size_bytes for unit in begun)
        while self._units and len(begun) + len(fresh) < most:
            self._cut_first(slowest_share)
            n_bytes += self._units[0].size_bytes
            if n_bytes > staged_bytes and (begun or fresh):
                break
            fresh.append(self._units.popleft())
            self._n_bytes -= fresh[-1].size_bytes
        return fresh

    def _cut_first(self, slowest_share: float) -> None:
        most = max(self._least_bytes, slowest_share * self._n_bytes)
        while (first := self._units[0]).size_bytes > most and len(first.files) > 1:
            # Packed as a plan packs, so that a run after a crash knows them.
            packs = [whole_files(half.files, self._planned) for half in halves(first)]
            self._units.popleft()
            self._units.extendleft(reversed(packs))


def halves(unit: WorkUnit) -> list[WorkUnit]:
    """The unit's files in two units, to find the file that it fails for; a single file stays."""
    if len(unit.files) == 1:
        return [unit]
    middle = len(unit.files) // 2
    return [
        replace(unit, unit_id=digest([unit.unit_id, half[0].file_key]), files=half)
        for half in (unit.files[:middle], unit.files[middle:])
    ]


def failed_alone(unit: WorkUnit, error: BaseException) -> EmbeddedUnit:
    """What is committed of a file, or of a slice of one, for which every attempt failed: a reject
    with the error; rows of an earlier version stay, and the next run tries again."""
    detail = f"{type(error).__name__}: {words(error)}"
    uri = unit.files[0].file.uri
    return EmbeddedUnit.rejected(unit, Reject(uri, None, None, FAILED.name, detail))


def whole_files(files: Sequence[PlannedFile], planned: Plan) -> WorkUnit:
    """A unit of whole files."""
    attempt = planned.table_version if any(file.again for file in files) else None
    keys = (file.file_key for file in files)
    return WorkUnit(unit_id(keys, planned.space_id, attempt), tuple(files))
