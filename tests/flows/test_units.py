"""Units go through in a bounded window, are committed in order, and a setup fault ends the run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from embedding_core import pipeline
from embedding_core.errors import ModelError
from embedding_core.pipeline import Job, RunTally
from embedding_core.recipe import Resources
from embedding_core.records import EmbeddedUnit, WorkUnit
from flows import units
from flows.settings import Settings
from tests.driver import begin, recipe_for, rows, write_jsonl


class SilentProgress:
    """Stands in for the terminal and the Prefect API."""

    def __init__(self, _total: int) -> None: ...
    def __enter__(self) -> SilentProgress:
        return self

    def __exit__(self, *_: object) -> None: ...
    def finished(self, _unit: EmbeddedUnit | None) -> None: ...
    def publish(self) -> None: ...


class InProcessRunner:
    """Runs units where it stands instead of on Ray, and watches how many are in flight."""

    most_in_flight = 0

    def __init__(self, job: Job, _settings: Settings) -> None:
        self.job = job
        self._in_flight = 0

    def submit(self, group: Sequence[WorkUnit]) -> list[WorkUnit]:
        self._in_flight += len(group)
        type(self).most_in_flight = max(self.most_in_flight, self._in_flight)
        return list(group)

    def collect(
        self, group: Sequence[WorkUnit], _tally: RunTally, _progress: Any
    ) -> list[EmbeddedUnit]:
        self._in_flight -= len(group)
        return [
            pipeline.embed_unit(self.job, pipeline.chunk_unit(self.job, unit)) for unit in group
        ]

    def with_fragments(self, done: list[EmbeddedUnit], _tally: RunTally) -> list[EmbeddedUnit]:
        return done


def prepared(folder: Path, n_files: int) -> tuple[Job, Any]:
    for number in range(n_files):
        write_jsonl(folder, f"{number:02}.jsonl", {"x": f"text {number}"})
    return begin(recipe_for(folder), Resources(unit_bytes=1, units_per_commit=3))


def test_run_units_never_more_than_two_groups_in_flight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(units, "_UnitRunner", InProcessRunner)
    monkeypatch.setattr(units, "RunProgress", SilentProgress)
    job, planned = prepared(tmp_path, n_files=11)
    tally = RunTally()
    units.run_units(job, planned, tally, Settings())
    assert InProcessRunner.most_in_flight == 6
    assert len(rows(job.recipe)) == tally.total("embedded") == 11


def test_run_units_setup_fault_ends_the_run_and_keeps_what_was_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoModelInTheThirdGroup(InProcessRunner):
        groups = 0

        def collect(self, *arguments: Any) -> list[EmbeddedUnit]:
            type(self).groups += 1
            if self.groups == 3:
                raise ModelError("out of models; bring one")
            return super().collect(*arguments)

    monkeypatch.setattr(units, "_UnitRunner", NoModelInTheThirdGroup)
    monkeypatch.setattr(units, "RunProgress", SilentProgress)
    job, planned = prepared(tmp_path, n_files=11)
    with pytest.raises(ModelError):
        units.run_units(job, planned, RunTally(), Settings())
    assert len(rows(job.recipe)) == 6
