"""Work units in a bounded window, committed in groups as they end.

Two groups are in flight at most: while one is embedded and committed, the next is being worked on.
Ray hangs with thousands of pending tasks, and a bounded window bounds staged data too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from embedding_core.errors import Transient, words
from embedding_core.plurals import counted
from embedding_core.records import EmbeddedUnit, Plan, StageSeconds, WorkUnit
from embedding_core.runs.choosing.settling import settle
from embedding_core.runs.embed.commit_stage import commit_units, forget_removed, lost_units
from embedding_core.runs.embed.execution import Execution, Log, Progress, UnitRunner
from embedding_core.runs.embed.finish_stage import RunTally
from embedding_core.runs.embed.planning import PlanBasis
from embedding_core.runs.embed.saved import finished_packs, finished_units
from embedding_core.runs.embed.slices import Gatherer, joined, slices_to_redo
from embedding_core.runs.embed.units import (
    WaitingUnits,
    WorkerRates,
    failed_alone,
    halves,
    work_units,
)
from embedding_core.runs.job import Job
from embedding_core.store.retry import MOST_FAILED_FILES
from embedding_core.watch.spans import span
from embedding_core.watch.subject import Subject, subject_of

GROUPS_IN_FLIGHT = 2

Clock = Callable[[], float]
"""Seconds since any moment; never goes back."""


def run_plan(
    job: Job,
    planned: Plan,
    tally: RunTally,
    execution: Execution,
    before_commit: Callable[[], None],
    clock: Clock = time.monotonic,
    after_commit: Callable[[], None] = lambda: None,
) -> None:
    """``run_units``, and once more for files that changed while they were read.

    What changes again waits for the next run; so do files that came or went meanwhile.
    """
    run_units(job, planned, tally, execution, before_commit, clock, after_commit)
    forget_removed(job, planned)
    if not tally.changed_uris:
        return
    basis = PlanBasis.now(job.recipe, before_a_run=True)
    newest = chosen_plan(job, basis, execution)
    # A choice is one of the whole source: what changed may change it for the other files, too.
    files = tuple(
        file
        for file in newest.files
        if file.file.uri in tally.changed_uris or newest.choice is not None
    )
    changed = replace(newest, files=files, removed_uris=(), removed_keys=(), unreadable=())
    if not files:
        return
    execution.log.info(
        "%s while read: once more", counted(len(files), "file changed", "files changed")
    )
    tally.forget_changed({file.file.uri for file in files})
    second = Job.of(changed, basis.recipe, job.resources, job.run_id, job.price_per_hour)
    run_units(second, changed, tally, execution, before_commit, clock, after_commit)


def chosen_plan(job: Job, basis: PlanBasis, execution: Execution) -> Plan:
    """The plan of a run that has made the table ready; where the recipe chooses among documents,
    files are surveyed for it as far as need be, and the choice is kept."""
    if not basis.choices.is_kept:
        runner = execution.surveyor(job, basis.choices.to_survey)
        choices = settle(job, basis.source, basis.rules, runner, execution.log)
        basis = replace(basis, choices=choices)
    return basis.plan()


def run_units(
    job: Job,
    planned: Plan,
    tally: RunTally,
    execution: Execution,
    before_commit: Callable[[], None],
    clock: Clock = time.monotonic,
    after_commit: Callable[[], None] = lambda: None,
) -> None:
    """Run every unit of the plan and commit what comes of it into ``tally``.

    Units are committed as they end, as soon as ``units_per_commit`` are ready or
    ``seconds_per_commit`` have passed; rows of removed files go with the first. A unit that fails
    is noted in ``tally.failures`` and does not take others with it. A ``SetupError`` in a task ends
    the run: it would hit every unit. ``before_commit`` may raise to stop a run that lost its table;
    ``after_commit`` is called when ``tally`` has a group.
    """
    # 1. Whole files that an earlier run embedded keep the units that they were in; the other files
    #    are packed into units.
    finished = finished_packs(job, planned)
    done_keys = {file.file_key for pack in finished for file in pack.unit.files}
    files = tuple(file for file in planned.files if file.file_key not in done_keys)
    left = replace(planned, files=files)
    units = list(work_units(left, job.resources.bytes_per_unit, job.recipe.source))
    n_units = len(finished) + len(units)
    if not n_units:
        before_commit()
        commit_units(job, (), planned.removed_keys)
        return
    tally.planned_units += n_units
    with execution.progress(job, n_units, planned.estimated_chunks or 0) as progress:
        commits = _Commits(job, tally, progress, before_commit, after_commit, planned.removed_keys)
        # 2. What an earlier run embedded is committed before anything is submitted.
        finished += finished_units(job, units)
        todo = _left_to_do(job, finished, units, progress, commits)
        # 3. The other units are worked on, and committed group by group.
        work = _Work(job, execution.runner(job, planned, todo), tally, execution.log)
        waiting = WaitingUnits(planned, todo, job.resources.unit_bytes)
        for group in _groups_to_commit(work, waiting, progress, clock):
            commits.commit(work.with_fragments(group))
        # 4. Without a group, rows of removed files have not gone yet.
        if commits.removed_keys:
            commits.commit([])


@dataclass(slots=True)
class _Commits:
    """Commits groups of units, and rows of removed files with the first group."""

    job: Job
    tally: RunTally
    progress: Progress
    before_commit: Callable[[], None]
    after_commit: Callable[[], None]
    removed_keys: Sequence[str]

    def commit(self, units: Sequence[EmbeddedUnit]) -> None:
        self.before_commit()
        with span("commit", run=self.job.run_id, units=len(units)):
            committed = commit_units(self.job, units, self.removed_keys)
        self.removed_keys = ()
        self.tally.add(committed)
        self.tally.commits += 1
        self.progress.publish()
        self.after_commit()


def _left_to_do(
    job: Job,
    finished: Sequence[EmbeddedUnit],
    units: Sequence[WorkUnit],
    progress: Progress,
    commits: _Commits,
) -> list[WorkUnit]:
    """Commit what an earlier run embedded; the other units. A file of which slices are missing, or
    have ids in common, is not committed: its slices are read from what was saved when their turn
    comes."""
    gatherer = Gatherer()
    whole_files: list[EmbeddedUnit] = []
    done_ids: set[str] = set()
    for unit in finished:
        gathered = gatherer.add(unit)
        if not slices_to_redo(job, gathered):
            done_ids.update(result.unit.unit_id for result in gathered)
            whole_files += _whole(job, gathered)
            for result in gathered:
                progress.finished(result)
    size = job.resources.units_per_commit
    for start in range(0, len(whole_files), size):
        commits.commit(whole_files[start : start + size])
    return [unit for unit in units if unit.unit_id not in done_ids]


def _whole(job: Job, gathered: list[EmbeddedUnit]) -> list[EmbeddedUnit]:
    """Whole files of what a gatherer gave."""
    if gathered and gathered[0].unit.slice is not None:
        return [joined(gathered, job.recipe.source.storage)]
    return gathered


def _groups_to_commit(
    work: _Work, waiting: WaitingUnits, progress: Progress, clock: Clock
) -> Iterator[list[EmbeddedUnit]]:
    """Embedded units in groups, none of them empty."""
    resources = work.job.resources
    size, seconds = resources.units_per_commit, resources.seconds_per_commit
    in_flight, rates, n_waiting = list[Any](), WorkerRates(), len(waiting)
    ready: list[EmbeddedUnit] = []
    gatherer = Gatherer()
    group_began = clock()
    while True:
        # 1. Fill the window. Units that wait for their commit take room in it, too.
        if waiting:
            n_workers = work.runner.n_workers
            size = max(resources.units_per_commit, n_workers)
            begun = [submitted.unit for submitted in (*in_flight, *ready)]
            share = rates.share_of_slowest(n_workers)
            fresh = waiting.take(begun, GROUPS_IN_FLIGHT * size, resources.staged_bytes, share)
            work.expect(len(fresh) + len(waiting) - n_waiting, progress)
            n_waiting = len(waiting)
            if fresh:
                in_flight.extend(work.submit(fresh))
        # 2. Wait for a unit to end: not beyond the moment when the run must say something, nor the
        #    moment when what is ready must be committed.
        wait = progress.seconds_to_speak
        if ready:
            wait = min(wait, max(0.0, group_began + seconds - clock()))
        ended = work.runner.first_to_end(in_flight, wait) if in_flight else None
        if in_flight:
            progress.still_working(len(in_flight))
        # 3. Read its result. Slices wait in the gatherer until their file is complete.
        if ended is not None:
            in_flight.remove(ended)
            results = work.collect([ended], progress)
            for result in results:
                rates.add(result)
            gathered = [slice_ for result in results for slice_ in gatherer.add(result)]
            ready += _whole(work.job, work.settled(gathered))
        # 4. Commit when the group is full, when its time is over, and at the end.
        is_late = bool(ready) and clock() - group_began >= seconds
        if len(ready) >= size or is_late or not in_flight:
            if ready:
                yield ready
            ready, group_began = [], clock()
            if not in_flight and not waiting:
                return


class _Work:
    """Units of one job at a runner: every result is read, failed units are taken apart."""

    def __init__(self, job: Job, runner: UnitRunner[Any], tally: RunTally, log: Log) -> None:
        self.job = job
        self.runner = runner
        self._tally = tally
        self._log = log
        self._submitted_at: dict[str, float] = {}
        self._files_left = MOST_FAILED_FILES  # with more failed files, it is not the files

    def submit(self, units: Sequence[WorkUnit]) -> list[Any]:
        """Begin some units; how long they wait for a worker counts from now."""
        now = time.monotonic()
        self._submitted_at |= {unit.unit_id: now for unit in units}
        return self.runner.submit(units)

    def expect(self, n_more: int, progress: Progress) -> None:
        """Count units that came of packs which were cut."""
        if n_more:
            self._tally.planned_units += n_more
            progress.expect(n_more)

    def collect(
        self, group: Sequence[Any], progress: Progress | None = None, failed_before: bool = False
    ) -> list[EmbeddedUnit]:
        """What became of submitted units, in order; failures go into the tally.

        ``failed_before``: so did the files of these units.
        """
        done: list[EmbeddedUnit] = []
        for submitted in group:
            unit, result = submitted.unit, self.runner.result(submitted)
            if isinstance(result, EmbeddedUnit):
                result = self._with_wait(result)
                done.append(result)
            elif _is_of_the_unit(result) and self._files_left > 0:
                done += self._apart(unit, result, failed_before)
            else:
                self._tally.failures.append(f"{unit.label}: {words(result)}")
                self._log.error(
                    "unit %s failed: %s", unit.label, words(result), extra=self._about(unit, result)
                )
            if progress is not None:
                progress.finished(result if isinstance(result, EmbeddedUnit) else None)
        return done

    def _about(self, unit: WorkUnit, error: BaseException) -> dict[str, str]:
        """What a line of a failure is about: what the error says, else the unit and its file."""
        own = Subject(self.job.run_id, unit.unit_id, unit.only_file)
        return own.fields | (subject_of(error) or own).fields

    def _with_wait(self, result: EmbeddedUnit) -> EmbeddedUnit:
        """The unit with the time in which nobody worked on it."""
        since = time.monotonic() - self._submitted_at[result.unit.unit_id]
        wait = StageSeconds(wait=max(0.0, since - result.stages.of_workers))
        return replace(result, stages=result.stages + wait)

    def _apart(
        self, unit: WorkUnit, error: BaseException, failed_before: bool
    ) -> list[EmbeddedUnit]:
        """The unit again in two halves, down to the file it fails for. A file that failed alone and
        before is rejected."""
        if failed_before and len(unit.files) == 1:
            self._files_left -= 1
            about = self._about(unit, error)
            self._log.error("%s rejected: %s", unit.label, words(error), extra=about)
            return [failed_alone(unit, error)]
        how = "in halves" if len(unit.files) > 1 else "by itself"
        self._log.warning(
            "unit %s failed, once more %s: %s",
            unit.label, how, words(error), extra=self._about(unit, error),
        )  # fmt: skip
        return self.collect(self.submit(halves(unit)), failed_before=True)

    def with_fragments(self, done: list[EmbeddedUnit]) -> list[EmbeddedUnit]:
        """``done``, with units whose fragments are gone from the store embedded again."""
        lost = {unit.unit.unit_id for unit in lost_units(self.job, done)}
        if not lost:
            return done
        units = [result.unit for result in done if result.unit.unit_id in lost]
        usable = [result for result in done if result.unit.unit_id not in lost]
        return usable + self.collect(self.submit(units))

    def settled(self, gathered: list[EmbeddedUnit]) -> list[EmbeddedUnit]:
        """All slices of a file, each with its fragments and without an id of an earlier one;
        nothing when one of them failed."""
        if not gathered or gathered[0].unit.slice is None:
            return gathered
        expected = len(gathered)
        slices = _by_number(self.with_fragments(gathered))
        if len(slices) == expected and (redo := slices_to_redo(self.job, slices)):
            made = self._made(redo)
            if len(made) < len(redo):
                return []  # the file waits for the next run; the tally says why
            numbers = set(map(_number, made))
            slices = _by_number([*(kept for kept in slices if _number(kept) not in numbers), *made])
        return slices if len(slices) == expected else []

    def _made(self, units: Sequence[WorkUnit]) -> list[EmbeddedUnit]:
        """Units of one file, some at a time."""
        made: list[EmbeddedUnit] = []
        remaining = iter(units)
        while group := list(islice(remaining, self.job.resources.units_per_commit)):
            made += self.with_fragments(self.collect(self.submit(group)))
        return made


def _number(result: EmbeddedUnit) -> int:
    return result.unit.slice.number if result.unit.slice is not None else 0


def _by_number(slices: Sequence[EmbeddedUnit]) -> list[EmbeddedUnit]:
    return sorted(slices, key=_number)


def _is_of_the_unit(error: BaseException) -> bool:
    """Whether another unit may well fare better: not a store that fails, nor a run that ends."""
    return isinstance(error, Exception) and not isinstance(error, Transient)
