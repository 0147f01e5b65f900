"""How far a run is, as its log and its artifact say it."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from embedding_core.records import EmbeddedUnit
from embedding_core.reports.plan import PlanView
from embedding_core.runs.embed.chunk_stage import chunk_unit
from embedding_core.runs.embed.embed_stage import embed_unit
from embedding_core.runs.embed.units import work_units
from embedding_core.runs.job import Job
from embedlake.orchestration import progress, publishing
from embedlake.orchestration.progress import RunProgress
from tests.driver import begin, recipe_for, write_jsonl


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that the run's clocks show; no Prefect API is there."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(progress, "create_progress_artifact", lambda **_: None)
    monkeypatch.setattr(progress, "get_run_logger", lambda: logging.getLogger("test"))
    return now


@pytest.fixture
def done(tmp_path: Path) -> tuple[Job, EmbeddedUnit]:
    """A run's job, and a unit of 40 chunks of 100 tokens that it embedded."""
    write_jsonl(tmp_path, "a.jsonl", {str(n): f"text {n}" for n in range(40)})
    job, planned = begin(recipe_for(tmp_path))
    (unit,) = work_units(planned, job.resources.unit_bytes)
    embedded = embed_unit(job, chunk_unit(job, unit))
    (counts,) = embedded.counts
    return job, replace(embedded, counts=(replace(counts, tokens=4_000),))


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "test"]


def test_progress_has_chunks_units_tokens_a_second_and_the_time_left(
    done: tuple[Job, EmbeddedUnit], clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    job, unit = done
    with RunProgress(job, total_units=5, estimated_chunks=210) as run:
        clock[0] = 4.0
        run.finished(unit)
        run.finished(None)  # failed: it is over all the same
        run.publish()
        for _ in range(3):
            run.finished(unit)
        run.publish()
    first, last = said(caplog)
    assert first == "40 of about 210 chunks · 2/5 units · 1,000 tokens/s · about 6 s left"
    assert last == "160 chunks · 5/5 units · 4,000 tokens/s"


def test_progress_of_a_small_run_shows_chunks_and_not_its_one_unit(
    done: tuple[Job, EmbeddedUnit], clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with RunProgress(done[0], total_units=1, estimated_chunks=40) as run:
        clock[0] = 2.0
        run.finished(done[1])
        run.publish()
    assert said(caplog) == ["40 chunks · 2,000 tokens/s"]


def test_progress_speaks_when_nothing_was_said_for_ten_seconds_and_not_sooner(
    done: tuple[Job, EmbeddedUnit], clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with RunProgress(done[0], total_units=4, estimated_chunks=160) as run:
        for seconds in (9.9, 10.0, 19.9, 20.0):
            clock[0] = seconds
            run.still_working(3)
    assert said(caplog) == ["0 of about 160 chunks · 0/4 units · 3 units under way"] * 2


def test_progress_and_reports_that_prefect_does_not_take_cost_a_line_and_not_the_run(
    done: tuple[Job, EmbeddedUnit],
    clock: list[float],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise httpx.ConnectError("connection refused")

    job, unit = done
    monkeypatch.setattr(publishing, "get_run_logger", lambda: logging.getLogger("test"))
    monkeypatch.setattr(publishing, "create_markdown_artifact", refused)
    monkeypatch.setattr(progress, "create_progress_artifact", lambda **_: uuid4())
    monkeypatch.setattr(progress, "update_progress_artifact", refused)
    with RunProgress(job, total_units=1, estimated_chunks=40) as run:
        run.finished(unit)
        run.publish()
    monkeypatch.setattr(progress, "create_progress_artifact", refused)
    RunProgress(job, total_units=1, estimated_chunks=40)
    publishing.publish("embed-plan", job.recipe, PlanView(begin(job.recipe)[1]))
    warnings = [line for line in said(caplog) if "is not in Prefect: connection refused" in line]
    assert [line.split()[2] for line in warnings] == [
        "embed-progress", "embed-progress", "embed-plan",
    ]  # fmt: skip
