"""Work units as tasks: chunk tasks mapped, embed tasks behind them, committed in groups.

Two groups are in flight at most: while one is embedded and committed, the next is being worked on.
Ray hangs with thousands of pending tasks, and a bounded window bounds staged data too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from prefect import get_run_logger, unmapped
from prefect.futures import PrefectFuture

from embedding_core.errors import Transient, words
from embedding_core.records import EmbeddedUnit, Plan, StagedUnit, WorkUnit
from embedding_core.runs.embed.commit_stage import commit_units, forget_removed, lost_units
from embedding_core.runs.embed.finish_stage import RunTally
from embedding_core.runs.embed.planning import plan
from embedding_core.runs.embed.saved import finished_packs, finished_units
from embedding_core.runs.embed.slices import Gatherer, joined, slices_to_redo
from embedding_core.runs.embed.units import failed_alone, halves, work_units
from embedding_core.runs.job import Job
from embedlake.execution.runner import current_runner
from embedlake.execution.small_work import is_small
from embedlake.orchestration import tasks
from embedlake.orchestration.progress import RunProgress
from embedlake.orchestration.results import result_storage
from embedlake.settings import Settings

GROUPS_IN_FLIGHT = 2
MOST_FAILED_FILES = 64
"""Failed units are taken apart until so many files were found; with more, it is not the files."""


@dataclass(frozen=True, slots=True)
class _Submitted:
    unit: WorkUnit
    staged: PrefectFuture[tasks.Sealed[StagedUnit]]
    embedded: PrefectFuture[EmbeddedUnit]


def run_plan(
    job: Job,
    planned: Plan,
    tally: RunTally,
    settings: Settings,
    before_commit: Callable[[], None],
) -> None:
    """``run_units``, and once more for files that changed while they were read.

    What changes again waits for the next run; so do files that came or went meanwhile.
    """
    run_units(job, planned, tally, settings, before_commit)
    forget_removed(job, planned)
    if not tally.changed_uris:
        return
    newest = plan(job.recipe)
    files = tuple(one for one in newest.files if one.file.uri in tally.changed_uris)
    again = replace(newest, files=files, removed_uris=(), removed_keys=(), unreadable=())
    if not files:
        return
    get_run_logger().info("%d files changed while they were read: once more", len(files))
    tally.forget_changed({one.file.uri for one in files})
    second = Job.of(again, job.recipe, job.resources, job.run_id)
    run_units(second, again, tally, settings, before_commit)


def run_units(
    job: Job,
    planned: Plan,
    tally: RunTally,
    settings: Settings,
    before_commit: Callable[[], None],
) -> None:
    """Run every unit of the plan and commit what comes of it into ``tally``.

    What an earlier run embedded and did not commit is committed first, before anything is
    submitted. Then units are committed as they end, as soon as ``units_per_commit`` are ready or
    ``seconds_per_commit`` have passed; rows of removed files go with the first. A unit that fails
    is noted in ``tally.failures`` and does not take others with it. A ``SetupError`` in a task ends
    the run: it would hit every unit. ``before_commit`` may raise to stop a run that lost its table.
    """
    source = job.recipe.source
    finished = finished_packs(job, planned)
    done = {one.file_key for pack in finished for one in pack.unit.files}
    files = tuple(one for one in planned.files if one.file_key not in done)
    left = replace(planned, files=files)
    units = list(work_units(left, job.resources.unit_bytes, source))
    if not (units or finished):
        before_commit()
        commit_units(job, (), planned.removed_keys)
        return
    removed = planned.removed_keys

    def commit(done: list[EmbeddedUnit]) -> None:
        nonlocal removed
        before_commit()
        commit_units(job, done, removed)
        removed = ()
        tally.add(done)
        progress.publish()

    with RunProgress(job, len(finished) + len(units), planned.estimated_chunks) as progress:
        finished += finished_units(job, units)
        rest = _left_to_do(job, finished, units, progress, commit)
        runner = _UnitRunner(
            job, settings, is_small(planned, rest, job.recipe, job.resources, settings)
        )
        for ready in _ready(runner, rest, tally, progress):
            commit(runner.with_fragments(ready, tally))


def _left_to_do(
    job: Job,
    finished: Sequence[EmbeddedUnit],
    units: Sequence[WorkUnit],
    progress: RunProgress,
    commit: Callable[[list[EmbeddedUnit]], None],
) -> list[WorkUnit]:
    """Commit what an earlier run embedded before anything is submitted; the other units."""
    gatherer = Gatherer()
    whole: list[EmbeddedUnit] = []
    done: set[str] = set()
    for unit in finished:
        gathered = gatherer.add(unit)
        if not slices_to_redo(job, gathered):
            done.update(one.unit.unit_id for one in gathered)
            whole += _whole(gathered)
            for one in gathered:
                progress.finished(one)
    for start in range(0, len(whole), job.resources.units_per_commit):
        commit(whole[start : start + job.resources.units_per_commit])
    return [unit for unit in units if unit.unit_id not in done]


def _whole(gathered: list[EmbeddedUnit]) -> list[EmbeddedUnit]:
    """Whole files of what a gatherer gave."""
    if gathered and gathered[0].unit.slice is not None:
        return [joined(gathered)]
    return gathered


def _ready(
    runner: _UnitRunner, units: Sequence[WorkUnit], tally: RunTally, progress: RunProgress
) -> Iterator[list[EmbeddedUnit]]:
    """Embedded units in groups to commit, at least one group, which may be empty."""
    size, seconds = (
        runner.job.resources.units_per_commit,
        runner.job.resources.seconds_per_commit,
    )
    waiting, in_flight = iter(units), list[_Submitted]()
    ready: list[EmbeddedUnit] = []
    gatherer = Gatherer()
    since = time.monotonic()
    while True:
        room = GROUPS_IN_FLIGHT * size - len(in_flight) - len(ready)
        if some := list(islice(waiting, room)):
            in_flight.extend(runner.submit(some))
        wait = progress.seconds_to_speak
        if ready:
            wait = min(wait, max(0.0, since + seconds - time.monotonic()))
        ended = runner.first_to_end(in_flight, wait) if in_flight else None
        if in_flight:
            progress.still_working(len(in_flight))
        if ended is not None:
            in_flight.remove(ended)
            done = runner.collect([ended], tally, progress)
            gathered = [one for unit in done for one in gatherer.add(unit)]
            ready += _whole(_settled(runner, gathered, tally))
        late = bool(ready) and time.monotonic() - since >= seconds
        if len(ready) >= size or late or not in_flight:
            yield ready
            ready, since = [], time.monotonic()
            if not in_flight:
                return


def _settled(
    runner: _UnitRunner, gathered: list[EmbeddedUnit], tally: RunTally
) -> list[EmbeddedUnit]:
    """All slices of a file, each with its fragments and without an id of an earlier one; nothing
    when one of them failed."""
    if not gathered or gathered[0].unit.slice is None:
        return gathered
    expected, size = len(gathered), runner.job.resources.units_per_commit
    slices = _by_number(runner.with_fragments(gathered, tally))
    if len(slices) == expected and (redo := slices_to_redo(runner.job, slices)):
        made = [one for some in _groups(redo, size) for one in _made(runner, some, tally)]
        if len(made) < len(redo):
            return []  # the file waits for the next run; the tally says why
        numbers = {one.unit.slice.number for one in made if one.unit.slice}
        kept = [one for one in slices if one.unit.slice and one.unit.slice.number not in numbers]
        slices = _by_number([*kept, *made])
    return slices if len(slices) == expected else []


def _made(runner: _UnitRunner, some: list[WorkUnit], tally: RunTally) -> list[EmbeddedUnit]:
    return runner.with_fragments(runner.collect(runner.submit(some), tally), tally)


def _groups(units: Sequence[WorkUnit], size: int) -> Iterator[list[WorkUnit]]:
    remaining = iter(units)
    while group := list(islice(remaining, size)):
        yield group


def _by_number(slices: Sequence[EmbeddedUnit]) -> list[EmbeddedUnit]:
    return sorted(slices, key=lambda one: one.unit.slice.number if one.unit.slice else 0)


class _UnitRunner:
    """Submits units and reads their futures; every future is read, none is waited for in vain."""

    def __init__(self, job: Job, settings: Settings, in_process: bool) -> None:
        self.job = job
        self._runner = current_runner()
        self._runner.prepare(settings, job.resources, in_process)
        if self._runner.in_process:
            get_run_logger().info("little to do: tasks run in this process, without Ray")
        self._files_left = MOST_FAILED_FILES
        storage = result_storage(job.recipe)
        self._chunk = tasks.chunk.with_options(result_storage=storage)
        self._embed = tasks.embed.with_options(result_storage=storage)

    def submit(self, group: Sequence[WorkUnit], refresh: bool = False) -> list[_Submitted]:
        """Map the chunk task over a group and put an embed task behind each."""
        embed = self._embed.with_options(refresh_cache=refresh)
        staged = self._chunk.map(unmapped(self.job), [tasks.Sealed(unit) for unit in group])
        with self._runner.with_hardware():
            embedded = embed.map(unmapped(self.job), staged)
        return [_Submitted(*one) for one in zip(group, staged, embedded, strict=True)]

    def first_to_end(self, in_flight: Sequence[_Submitted], seconds: float) -> _Submitted | None:
        """A unit that has ended; waits for one, but no longer than ``seconds``."""
        ended = self._runner.first_ended([one.embedded for one in in_flight], seconds)
        return next((one for one in in_flight if one.embedded is ended), None)

    def collect(
        self,
        group: Sequence[_Submitted],
        tally: RunTally,
        progress: RunProgress | None = None,
        again: bool = False,
    ) -> list[EmbeddedUnit]:
        """What the group's units gave, in order; failures go into the tally. ``again``: the files
        of these units failed before."""
        done = []
        for submitted in group:
            result = self._result(submitted)
            if isinstance(result, EmbeddedUnit):
                # A cached result carries the plan of the run that made it: use this run's.
                done.append(replace(result, unit=submitted.unit))
            elif _is_of_the_unit(result) and self._files_left > 0:
                done += self._alone(submitted.unit, result, tally, again)
            else:
                tally.failures.append(f"{submitted.unit.label}: {words(result)}")
                get_run_logger().error("unit %s failed: %s", submitted.unit.label, words(result))
            if progress is not None:
                progress.finished(done[-1] if isinstance(result, EmbeddedUnit) else None)
        return done

    def _alone(
        self, unit: WorkUnit, error: Exception, tally: RunTally, again: bool
    ) -> list[EmbeddedUnit]:
        """The unit again in two halves, down to the file it fails for, which is rejected when it
        failed by itself and before."""
        if again and len(unit.files) == 1:
            self._files_left -= 1
            get_run_logger().error("%s rejected: %s", unit.label, error)
            return [failed_alone(unit, error)]
        how = "in halves" if len(unit.files) > 1 else "by itself"
        get_run_logger().warning("unit %s failed, once more %s: %s", unit.label, how, error)
        return self.collect(self.submit(halves(unit)), tally, again=True)

    def with_fragments(self, done: list[EmbeddedUnit], tally: RunTally) -> list[EmbeddedUnit]:
        """``done``, with units whose cached fragments are gone from the store embedded again."""
        lost = {unit.unit.unit_id for unit in lost_units(self.job, done)}
        if not lost:
            return done
        again = self.submit([one.unit for one in done if one.unit.unit_id in lost], refresh=True)
        return [one for one in done if one.unit.unit_id not in lost] + self.collect(again, tally)

    def _result(self, submitted: _Submitted) -> Any:
        """The embedded unit, or the exception that stopped it (the chunk task's own, if it was)."""
        staged = self._runner.result(submitted.staged)
        failed = isinstance(staged, BaseException)
        return staged if failed else self._runner.result(submitted.embedded)


def _is_of_the_unit(error: Any) -> bool:
    """Whether another unit may well fare better: not a store that fails, nor a run that ends."""
    return isinstance(error, Exception) and not isinstance(error, Transient)
