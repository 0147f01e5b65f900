"""How far the run on a table is, or how the last one ended: a small file beside the table.

The build of a new space goes on beside runs, so it has a file too.

Written when a run begins, after each commit and at its end, from numbers that came home with the
results of its tasks. It only informs: a record that cannot be written is logged, and the run goes
on; one that is gone or damaged is as good as none.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from typing import Any, Literal, Protocol

from botocore.exceptions import BotoCoreError
from pydantic import TypeAdapter

from embedding_core.errors import words
from embedding_core.lake.lock import held_lock
from embedding_core.lake.table import Table
from embedding_core.records import StageSeconds
from embedding_core.runs.outcome import Outcome
from embedding_core.store import storage
from embedding_core.store.layout import run_path
from embedding_core.store.untrusted.json_text import read_json

log = logging.getLogger(__name__)

DEAD_SECONDS = 120.0
"""A run that was not heard of for this long is dead: many times a lock's expiry."""
Kind = Literal["run", "build"]
"""``run``: rows of new and changed files; ``build``: the vectors of another model for all rows."""


class Work(Protocol):
    """What a run has done so far."""

    def figures(self) -> Mapping[str, Any]:
        """Its numbers, by the fields of a ``RunRecord``."""
        ...


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run that goes on, or the last that had something to do."""

    run_id: str
    state: Literal["running"] | Outcome
    started_at: float
    """Seconds since the epoch, UTC, by the clock of the run's machine; likewise the next two."""
    updated_at: float
    good_at: float | None = None
    """When a run last ended as ``done``, also one that found nothing to do."""
    seconds: float = 0.0
    """Wall clock so far."""
    units: int = 0
    """Work units of the plan; of a build, fragments of the table."""
    units_done: int = 0
    commits: int = 0
    tokens: int = 0
    chunks: Mapping[str, int] = field(default_factory=dict)
    """Their numbers, by what became of them."""
    rejects: int = 0
    recomputed: int = 0
    halvings: int = 0
    batch_fill: float | None = None
    stages: StageSeconds = field(default_factory=StageSeconds)
    cost: float | None = None


def read_record(table: Table, kind: Kind = "run") -> RunRecord | None:
    """The record of a table's run; None where it cannot be read."""
    path = run_path(table.lake.uri, table.name, kind)
    try:
        content = read_json(storage.read_bytes(path, table.lake.storage))
        return _validator().validate_python(content)
    except FileNotFoundError:
        return None
    except (OSError, BotoCoreError, ValueError) as error:  # pydantic's is a ValueError
        log.warning("the record of the last %s on %s: %s", kind, table.uri, words(error))
        return None


@cache
def _validator() -> TypeAdapter[RunRecord]:
    """Checks a record: whoever may write to the lake may have changed it."""
    return TypeAdapter(RunRecord)


class RunRecorder:
    """Writes the record of one run."""

    def __init__(
        self,
        table: Table,
        run_id: str,
        price_per_hour: float | None,
        clock: Callable[[], float],
        kind: Kind = "run",
    ) -> None:
        self._table, self._price, self._clock, self._kind = table, price_per_hour, clock, kind
        previous, now = read_record(table, kind), clock()
        good_at = previous.good_at if previous is not None else None
        self._record = RunRecord(run_id, "running", now, now, good_at)

    def progress(self, work: Work) -> None:
        """Say how far the run is."""
        self._write(self._counted(work))

    def end(self, work: Work, outcome: Outcome) -> None:
        """Say how the run ended."""
        self._write(replace(self._counted(work), state=outcome))

    def fail(self, work: Work) -> None:
        """Say that the run failed, unless another run has taken over."""
        newest = read_record(self._table, self._kind)
        if newest is None or newest.run_id == self._record.run_id:
            self.end(work, "failed")

    def _counted(self, work: Work) -> RunRecord:
        seconds = self._clock() - self._record.started_at
        counted = replace(self._record, seconds=seconds, **work.figures())
        return replace(counted, cost=counted.stages.cost(self._price))

    def _write(self, record: RunRecord) -> None:
        now = self._clock()
        good_at = now if record.state == "done" else record.good_at
        _save(self._table, replace(record, updated_at=now, good_at=good_at), self._kind)


@contextmanager
def recorded(
    table: Table,
    run_id: str,
    work: Work,
    price_per_hour: float | None = None,
    clock: Callable[[], float] = time.time,
    kind: Kind = "run",
) -> Iterator[RunRecorder]:
    """The recorder of a run for the time it works; a run that an error ends has failed."""
    recorder = RunRecorder(table, run_id, price_per_hour, clock, kind)
    recorder.progress(work)
    try:
        yield recorder
    except BaseException:
        recorder.fail(work)
        raise


def record_idle_run(table: Table, outcome: Outcome, clock: Callable[[], float] = time.time) -> None:
    """Say how a run ended that found nothing to do; the figures of the last run with work stay.

    It held no lock, so another run may have begun: that one's state stays while it lives.
    """
    now = clock()
    record = read_record(table) or RunRecord("", outcome, now, now)
    good_at = now if outcome == "done" else record.good_at
    if record.state == "running" and _lives(table, now):
        _save(table, replace(record, good_at=good_at))
    else:
        _save(table, replace(record, state=outcome, updated_at=now, good_at=good_at))


def _lives(table: Table, now: float) -> bool:
    """Whether the run that holds the table's lock was heard of lately, as far as clocks agree."""
    lock = held_lock(table, "lock")
    return lock is not None and now - lock.renewed < DEAD_SECONDS


def _save(table: Table, record: RunRecord, kind: Kind = "run") -> None:
    path, content = run_path(table.lake.uri, table.name, kind), json.dumps(asdict(record)).encode()
    try:
        storage.write_bytes(path, content, table.lake.storage)
    except (OSError, BotoCoreError) as error:
        log.warning("the record of the %s on %s: %s", kind, table.uri, words(error))
