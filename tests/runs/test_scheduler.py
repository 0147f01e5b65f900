"""Units go through in a bounded window, are committed in order, and a setup fault ends the run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from embedding_core.errors import LakeError, ModelError
from embedding_core.recipe import Resources
from embedding_core.records import EmbeddedUnit, StageSeconds, WorkUnit
from embedding_core.runs.embed import chunk_stage, scheduler
from embedding_core.runs.embed.chunk_stage import chunk_unit
from embedding_core.runs.embed.commit_stage import commit_units
from embedding_core.runs.embed.embed_stage import embed_unit
from embedding_core.runs.embed.execution import Begun, InProcess, SilentProgress
from embedding_core.runs.embed.finish_stage import RunTally, finish
from embedding_core.runs.embed.planning import plan
from embedding_core.runs.embed.saved import finished_packs
from embedding_core.runs.embed.units import WaitingUnits, WorkerRates, work_units
from embedding_core.runs.job import Job
from tests.driver import begin, recipe_for, rejects, rows, run, texts, write_jsonl


class Counted(InProcess):
    """Counts the units in flight."""

    def __init__(self) -> None:
        self.in_flight = self.most_in_flight = 0

    def submit(self, units: Sequence[WorkUnit]) -> list[Begun]:
        """See ``UnitRunner``."""
        self.in_flight += len(units)
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        return super().submit(units)

    def result(self, submitted: Begun) -> EmbeddedUnit | BaseException:
        """See ``UnitRunner``."""
        self.in_flight -= 1
        return super().result(submitted)


def ticks(step: int = 1) -> Callable[[], float]:
    """A clock that goes on by ``step`` seconds whenever it is read."""
    seconds = count(0, step)
    return lambda: next(seconds)


def prepared(folder: Path, n_files: int) -> tuple[Job, Any]:
    for number in range(n_files):
        write_jsonl(folder, f"{number:02}.jsonl", {"x": f"text {number}"})
    return begin(recipe_for(folder), Resources(unit_bytes=1, units_per_commit=3))


def test_run_units_never_more_than_two_groups_in_flight(tmp_path: Path) -> None:
    execution = Counted()
    job, planned = prepared(tmp_path, n_files=11)
    tally = RunTally()
    scheduler.run_units(job, planned, tally, execution, lambda: None)
    assert execution.most_in_flight == 6
    assert len(rows(job.recipe)) == tally.total("embedded") == 11


def test_run_units_window_and_groups_grow_with_the_workers(tmp_path: Path) -> None:
    class OfFour(Counted):
        n_workers = 4

    execution, groups = OfFour(), []
    job, planned = prepared(tmp_path, n_files=11)
    tally = RunTally()
    scheduler.run_units(job, planned, tally, execution, lambda: groups.append(1))
    assert (execution.most_in_flight, len(groups)) == (8, 3)
    assert len(rows(job.recipe)) == 11


@pytest.mark.parametrize(("n_bytes", "most_in_flight"), [(62, 2), (1, 1), (10_000, 6)])
def test_run_units_in_flight_have_at_most_so_many_bytes_or_are_alone(
    tmp_path: Path, n_bytes: int, most_in_flight: int
) -> None:
    execution = Counted()
    job, planned = prepared(tmp_path, n_files=11)
    assert {file.file.size_bytes for file in planned.files} == {30, 31}
    job = replace(job, resources=job.resources.updated({"staged_bytes": n_bytes}))
    scheduler.run_units(job, planned, RunTally(), execution, lambda: None)
    assert execution.most_in_flight == most_in_flight
    assert len(rows(job.recipe)) == 11


def test_run_units_setup_fault_ends_the_run_and_keeps_what_was_committed(
    tmp_path: Path,
) -> None:
    class NoModelForTheSeventhUnit(InProcess):
        n_results = 0

        def result(self, submitted: Begun) -> EmbeddedUnit | BaseException:
            self.n_results += 1
            if self.n_results == 7:
                raise ModelError("out of models; bring one")
            return super().result(submitted)

    job, planned = prepared(tmp_path, n_files=11)
    with pytest.raises(ModelError):
        scheduler.run_units(job, planned, RunTally(), NoModelForTheSeventhUnit(), lambda: None)
    assert len(rows(job.recipe)) == 6


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many units each commit had."""
    seen: list[int] = []
    commit = commit_units

    def counted(
        job: Job, done: Sequence[EmbeddedUnit], removed: Sequence[str] = ()
    ) -> list[EmbeddedUnit]:
        seen.append(len(done))
        return commit(job, done, removed)

    monkeypatch.setattr(scheduler, "commit_units", counted)
    return seen


def test_run_units_what_is_ready_is_committed_in_time_though_the_group_is_not_full(
    tmp_path: Path, groups: list[int]
) -> None:
    job, planned = prepared(tmp_path, n_files=4)
    job = replace(job, resources=Resources(unit_bytes=1, units_per_commit=4, seconds_per_commit=1))
    scheduler.run_units(job, planned, RunTally(), InProcess(), lambda: None, ticks())
    assert groups == [1, 1, 1, 1]


def test_run_units_a_slow_unit_does_not_hold_up_the_commit_of_others(
    tmp_path: Path, groups: list[int]
) -> None:
    waits: list[float] = []

    class FirstUnitIsSlow(InProcess):
        def first_to_end(self, in_flight: Sequence[Begun], seconds: float) -> Begun | None:
            waits.append(seconds)
            if len(in_flight) > 1:
                return in_flight[1]
            slow = in_flight[0]
            return None if seconds < SilentProgress.seconds_to_speak else slow

    job, planned = prepared(tmp_path, n_files=6)
    job = replace(job, resources=Resources(unit_bytes=1, units_per_commit=3, seconds_per_commit=9))
    scheduler.run_units(job, planned, RunTally(), FirstUnitIsSlow(), lambda: None, ticks(4))
    assert sum(groups) == 6 and groups[-1] == 1, "the others waited for the slow one"
    silence = SilentProgress.seconds_to_speak
    assert waits[0] == waits[-1] == silence
    assert all(0 <= seconds <= silence for seconds in waits)


def test_run_units_run_that_lost_its_table_commits_nothing_more(
    tmp_path: Path,
) -> None:
    job, planned = prepared(tmp_path, n_files=5)
    left = iter([True])

    def taken_over() -> None:
        if not next(left, False):
            raise LakeError("another run took over")

    with pytest.raises(LakeError):
        scheduler.run_units(job, planned, RunTally(), InProcess(), taken_over)
    assert len(rows(job.recipe)) == 3


class Watched(InProcess):
    """Notes the rows that the table has whenever units are submitted."""

    def __init__(self) -> None:
        self.committed_at_submit: list[int] = []

    def submit(self, units: Sequence[WorkUnit]) -> list[Begun]:
        """See ``UnitRunner``."""
        self.committed_at_submit.append(len(rows(self.job.recipe)))
        return super().submit(units)


def test_run_units_what_a_crash_left_is_committed_before_anything_is_submitted(
    tmp_path: Path,
) -> None:
    job, planned = prepared(tmp_path, n_files=11)
    for unit in list(work_units(planned, 1))[4:9]:
        embed_unit(job, chunk_unit(job, unit))
    tally, execution = RunTally(), Watched()
    scheduler.run_units(job, planned, tally, execution, lambda: None)
    assert execution.committed_at_submit[0] == 5
    assert len(rows(job.recipe)) == tally.total("embedded") == 11


def test_run_units_what_a_crash_left_is_committed_though_files_came_changed_and_went(
    tmp_path: Path,
) -> None:
    job, planned = prepared(tmp_path, n_files=12)
    two_files = 2 * planned.files[0].file.size_bytes
    for unit in work_units(planned, two_files):
        embed_unit(job, chunk_unit(job, unit))
    write_jsonl(tmp_path, "0.jsonl", {"x": "new, and first"})
    write_jsonl(tmp_path, "04.jsonl", {"x": "changed"})
    (tmp_path / "src" / "06.jsonl").unlink()
    (tmp_path / "src" / "08.jsonl").rename(tmp_path / "src" / "99.jsonl")
    job, planned = begin(job.recipe, Resources(unit_bytes=3 * two_files))
    tally, execution = RunTally(), Watched()
    scheduler.run_units(job, planned, tally, execution, lambda: None)
    assert execution.committed_at_submit == [6]  # the packs 00 01, 02 03 and 10 11
    assert len(rows(job.recipe)) == 12
    assert finish(job, planned, tally, 0.0).outcome == "done"
    assert plan(job.recipe).is_empty


def test_finished_packs_a_file_that_two_runs_embedded_is_there_once(tmp_path: Path) -> None:
    job, planned = prepared(tmp_path, n_files=3)
    size = planned.files[0].file.size_bytes
    for unit_bytes in (size, 2 * size, 3 * size):
        for unit in work_units(planned, unit_bytes):
            embed_unit(job, chunk_unit(job, unit))
    packs = finished_packs(job, planned)
    keys = [file.file_key for pack in packs for file in pack.unit.files]
    assert len(keys) == len(set(keys)) and keys
    files = tuple(replace(file, again=True) for file in planned.files)
    later = replace(planned, files=files, table_version=7)
    assert finished_packs(job, later) == [], "rows of long ago are no longer to be used"


def test_run_plan_file_that_changes_while_it_is_read_is_done_once_more(
    tmp_path: Path,
) -> None:
    class ChangesWhenRead(InProcess):
        changes = 1

        def submit(self, units: Sequence[WorkUnit]) -> list[Begun]:
            if self.changes:
                self.changes -= 1
                write_jsonl(tmp_path, "01.jsonl", {"x": f"changed, {self.changes} to go"})
            return super().submit(units)

    job, planned = prepared(tmp_path, n_files=3)
    tally = RunTally()
    scheduler.run_plan(job, planned, tally, ChangesWhenRead(), lambda: None)
    report = finish(job, planned, tally, 0.0)
    assert (report.outcome, report.rows, report.embedded) == ("done", 3, 3)
    assert (report.rejects, rejects(job.recipe)) == ({}, [])
    assert "changed, 0 to go" in texts(job.recipe)
    assert plan(job.recipe).is_empty


def test_run_plan_file_that_changes_all_the_time_waits_for_the_next_run(
    tmp_path: Path,
) -> None:
    class AlwaysChanges(InProcess):
        n_changes = 0

        def submit(self, units: Sequence[WorkUnit]) -> list[Begun]:
            self.n_changes += 1
            write_jsonl(tmp_path, "01.jsonl", {"x": f"change {self.n_changes}"})
            return super().submit(units)

    job, planned = prepared(tmp_path, n_files=3)
    tally = RunTally()
    scheduler.run_plan(job, planned, tally, AlwaysChanges(), lambda: None)
    report = finish(job, planned, tally, 0.0)
    assert (report.outcome, report.rejects) == ("rejected", {"changed": 1})
    assert report.rows == 2 and report.verification.passed
    assert run(job.recipe).rows == 3


def break_the_code(patch: pytest.MonkeyPatch, *bad: str, times: int = 1_000) -> None:
    """Let the chunker raise what nobody expects, so many times, for some texts."""
    real = chunk_stage.apply_length_policy
    left = [times]

    def policy(chunks: Any, *arguments: Any) -> Any:
        for chunk in chunks:
            if chunk.text in bad and left[0]:
                left[0] -= 1
                raise ZeroDivisionError(f"by {chunk.text}")
        return real(chunks, *arguments)

    patch.setattr(chunk_stage, "apply_length_policy", policy)


def packed_with_one_that_breaks_the_code(
    folder: Path, patch: pytest.MonkeyPatch
) -> tuple[Job, Any]:
    """Nine files in one unit, the sixth of which makes the chunker raise what nobody expects."""
    break_the_code(patch, "text 5")
    job, planned = prepared(folder, n_files=9)
    return replace(job, resources=Resources(unit_bytes=1 << 20)), planned


def test_run_units_file_that_breaks_its_unit_is_found_and_rejected_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tally = RunTally()
    with monkeypatch.context() as patch:
        job, planned = packed_with_one_that_breaks_the_code(tmp_path, patch)
        scheduler.run_units(job, planned, tally, InProcess(), lambda: None)
        report = finish(job, planned, tally, 0.0)
    assert (report.outcome, report.rows, report.failures) == ("rejected", 8, ())
    (reject,) = rejects(job.recipe)
    assert reject["source_uri"].endswith("05.jsonl")
    assert (reject["reason"], reject["detail"]) == ("failed", "ZeroDivisionError: by text 5")
    assert run(job.recipe).rows == 9
    assert rejects(job.recipe) == []


def test_run_units_error_without_a_message_is_logged_in_words(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class OutOfMemory(InProcess):
        def result(self, submitted: Begun) -> EmbeddedUnit | BaseException:
            return MemoryError()

    job, planned = prepared(tmp_path, n_files=1)
    scheduler.run_units(job, planned, RunTally(), OutOfMemory(), lambda: None)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2 and all("out of memory" in line for line in said), said


def test_run_units_when_too_many_units_fail_none_is_taken_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tally = RunTally()
    monkeypatch.setattr(scheduler, "MOST_FAILED_FILES", 0)
    job, planned = packed_with_one_that_breaks_the_code(tmp_path, monkeypatch)
    scheduler.run_units(job, planned, tally, InProcess(), lambda: None)
    report = finish(job, planned, tally, 0.0)
    assert (report.outcome, report.rows) == ("failed", 0)
    assert report.failures == ("00.jsonl +8: by text 5",)


@pytest.mark.slow
def test_run_units_many_files_that_break_their_unit_take_no_other_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = [f"text {n}" for n in range(3, 128, 10)]
    break_the_code(monkeypatch, *bad)
    job, planned = prepared(tmp_path, n_files=128)
    job = replace(job, resources=Resources())
    tally = RunTally()
    scheduler.run_units(job, planned, tally, InProcess(), lambda: None)
    report = finish(job, planned, tally, 0.0)
    assert (report.rows, report.failures) == (128 - len(bad), ())
    assert report.rejects == {"failed": len(bad)}


@pytest.mark.parametrize(("times", "rejects"), [(1, {}), (2, {"failed": 1})])
def test_run_units_file_that_is_its_own_unit_is_tried_again_before_it_is_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int, rejects: dict[str, int]
) -> None:
    break_the_code(monkeypatch, "text 1", times=times)
    job, planned = prepared(tmp_path, n_files=3)
    tally = RunTally()
    scheduler.run_units(job, planned, tally, InProcess(), lambda: None)
    report = finish(job, planned, tally, 0.0)
    assert (report.rejects, report.rows) == (rejects, 3 - len(rejects))


class TwoSpeeds(InProcess):
    """Workers of two speeds take units in order, each as soon as it is free, by a clock of its own;
    the units are embedded for real."""

    rates = (1.0, 4.0)
    """Bytes per second."""
    n_workers = len(rates)

    def __init__(self) -> None:
        self.now = 0.0
        self.sizes: list[int] = []
        self._free_at = [0.0] * self.n_workers
        self._seconds: dict[str, float] = {}
        self._ends: dict[str, float] = {}

    @classmethod
    def seconds_of(cls, units: Sequence[WorkUnit]) -> float:
        """How long these units take."""
        runner = cls()
        runner.submit(units)
        return max(runner._free_at)

    def submit(self, units: Sequence[WorkUnit]) -> list[Begun]:
        """See ``UnitRunner``."""
        for unit in units:
            worker = self._free_at.index(min(self._free_at))
            seconds = unit.size_bytes / self.rates[worker]
            self._free_at[worker] = max(self.now, self._free_at[worker]) + seconds
            self._seconds[unit.unit_id] = seconds
            self._ends[unit.unit_id] = self._free_at[worker]
            self.sizes.append(unit.size_bytes)
        return super().submit(units)

    def first_to_end(self, in_flight: Sequence[Begun], seconds: float) -> Begun | None:
        """See ``UnitRunner``."""
        first = min(in_flight, key=lambda begun: self._ends[begun.unit.unit_id])
        self.now = self._ends[first.unit.unit_id]
        return first

    def result(self, submitted: Begun) -> EmbeddedUnit | BaseException:
        """See ``UnitRunner``."""
        result = super().result(submitted)
        assert isinstance(result, EmbeddedUnit)
        return replace(result, stages=StageSeconds(forward=self._seconds[result.unit.unit_id]))


class Expected(SilentProgress):
    """Counts the units that a run came to expect."""

    def __init__(self, n_units: int) -> None:
        self.n_units = n_units
        self.n_ended = 0

    def expect(self, n_more: int) -> None:
        """See ``Progress``."""
        self.n_units += n_more

    def finished(self, unit: EmbeddedUnit | None) -> None:
        """See ``Progress``."""
        self.n_ended += 1


def packs_of_eight(folder: Path, n_files: int) -> tuple[Job, Any]:
    job, planned = prepared(folder, n_files)
    unit_bytes = 8 * max(file.file.size_bytes for file in planned.files)
    return replace(job, resources=Resources(unit_bytes=unit_bytes, units_per_commit=1)), planned


def test_run_units_slow_worker_does_not_hold_up_the_end_of_a_run(tmp_path: Path) -> None:
    class Shown(TwoSpeeds):
        shown = Expected(0)

        def progress(self, job: Job, n_units: int, estimated_chunks: int) -> Any:
            self.shown = Expected(n_units)
            return nullcontext(self.shown)

    job, planned = packs_of_eight(tmp_path, n_files=144)
    as_planned = list(work_units(planned, job.resources.unit_bytes))
    n_bytes = sum(unit.size_bytes for unit in as_planned)
    tally, execution = RunTally(), Shown()
    scheduler.run_units(job, planned, tally, execution, lambda: None)
    assert len(rows(job.recipe)) == 144
    ideal = n_bytes / sum(execution.rates)
    assert execution.now < 1.05 * ideal < TwoSpeeds.seconds_of(as_planned)
    assert sum(execution.sizes) == n_bytes and execution.sizes[-1] < execution.sizes[0] / 2
    assert execution.shown.n_ended == execution.shown.n_units == tally.planned_units
    assert tally.planned_units > len(as_planned)


@pytest.mark.parametrize(
    ("seconds", "n_workers", "share"),
    [((), 1, 1.0), ((), 4, 0.25), ((1.0, 1.0), 4, 0.25), ((1.0, 0.25, 0.25, 0.25, 0.25), 2, 0.2),
     ((1.0,), 1, 1.0)],
)  # fmt: skip
def test_slowest_worker_has_the_share_that_results_say(
    tmp_path: Path, seconds: tuple[float, ...], n_workers: int, share: float
) -> None:
    job, planned = prepared(tmp_path, n_files=1)
    (unit,) = work_units(planned, None)
    result = embed_unit(job, chunk_unit(job, unit))
    rates = WorkerRates()
    for number in seconds:
        rates.add(replace(result, stages=StageSeconds(load=99.0, forward=number)))
    rates.add(replace(result, stages=StageSeconds()))  # nothing had to be embedded
    assert rates.share_of_slowest(n_workers) == pytest.approx(share)


def test_packs_are_cut_only_while_little_waits_and_never_below_the_smallest(
    tmp_path: Path,
) -> None:
    job, planned = packs_of_eight(tmp_path, n_files=32)
    units = list(work_units(planned, job.resources.unit_bytes))
    for share, first, last in ((1.0, [8, 8, 8], 8), (0.25, [8, 4, 4, 4, 2, 2], 1)):
        waiting = WaitingUnits(planned, units, job.resources.unit_bytes)
        taken = waiting.take([], 99, 1 << 30, share)
        n_files = [len(unit.files) for unit in taken]
        assert (n_files[: len(first)], n_files[-1]) == (first, last)
        assert n_files == sorted(n_files, reverse=True)
        keys = [file.file_key for unit in taken for file in unit.files]
        assert keys == [file.file_key for file in planned.files] and not len(waiting)
    coarse = WaitingUnits(planned, units, 64 * job.resources.unit_bytes)
    assert coarse.take([], 99, 1 << 30, 0.01) == units


def test_units_of_a_pack_that_was_cut_are_known_after_a_crash(tmp_path: Path) -> None:
    job, planned = packs_of_eight(tmp_path, n_files=16)
    units = work_units(planned, job.resources.unit_bytes)
    waiting = WaitingUnits(planned, units, job.resources.unit_bytes)
    cut = waiting.take([], 3, 1 << 30, 0.1)
    assert {len(unit.files) for unit in cut} == {1}
    for unit in cut:
        embed_unit(job, chunk_unit(job, unit))
    assert len(finished_packs(job, planned)) == 3
