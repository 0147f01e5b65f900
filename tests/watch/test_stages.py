"""Where the time of a run goes: in its report, in the ledger, and wherever people look."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from embedding_core.encoder import Encoder
from embedding_core.errors import RejectedInput
from embedding_core.lake import ledger
from embedding_core.lake.table import table_of
from embedding_core.reasons import FAILED
from embedding_core.recipe import ModelSpec, Recipe, Resources
from embedding_core.records import Document, ModelWork, StageSeconds
from embedding_core.reports.run import RunView
from embedding_core.reports.status import StatusView
from embedding_core.runs.embed.chunk_stage import RECORDS_AHEAD, read_ahead
from embedding_core.runs.embed.finish_stage import RunReport
from embedding_core.runs.embed.run import embed
from embedding_core.runs.look.history import run_history
from embedding_core.runs.space.build import (
    add_space,
    backfill_fragment,
    fragments_to_fill,
    space_job,
    space_report,
)
from embedding_core.runs.table_status import status
from embedding_core.watch.stopwatch import Stopwatch
from tests.driver import recipe_for, write_jsonl

PRICE = 36.0


class Clock:
    """Shows what it is set to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_stages_inside_each_other_add_up_to_the_time_that_passed() -> None:
    clock = Clock()
    watch = Stopwatch("write", clock)
    clock.now = 1.0
    with watch.stage("forward"):
        clock.now = 3.0
        with watch.stage("read"):
            clock.now = 7.0
        clock.now = 8.0
    clock.now = 8.5
    watch.move(1.0, "forward", "tokenise")
    assert watch.read() == StageSeconds(read=4.0, tokenise=1.0, forward=2.0, write=1.5)


def test_items_count_for_the_stage_they_come_from_and_what_is_done_with_them_does_not() -> None:
    clock = Clock()

    def slow_items() -> Iterator[int]:
        for item in range(3):
            clock.now += 2.0
            yield item

    watch = Stopwatch("write", clock)
    for _ in watch.each("read", slow_items()):
        clock.now += 0.5
    assert watch.read() == StageSeconds(read=6.0, write=1.5)


def test_stage_is_as_before_after_an_error() -> None:
    clock = Clock()
    watch = Stopwatch("write", clock)
    with pytest.raises(OSError), watch.stage("read"):
        clock.now = 1.0
        raise OSError
    clock.now = 3.0
    assert watch.read() == StageSeconds(read=1.0, write=2.0)


def test_cost_is_that_of_all_work_and_of_no_wait() -> None:
    stages = StageSeconds(1, 2, 3, 4, 5, 6, commit=7, wait=1_000)
    assert stages.work == 28 and stages.of_workers == 21
    assert stages.cost(3_600) == 28 and stages.cost(None) is None


def documents(lengths: list[int]) -> Iterator[Document]:
    for position, length in enumerate(lengths):
        yield Document(str(position), position, "x" * length, {})


@pytest.mark.parametrize("lengths", [[], [1] * 3 * RECORDS_AHEAD, [1, 2_000_000, 1, 1_500_000]])
def test_records_read_ahead_keep_their_order(lengths: list[int]) -> None:
    records = list(read_ahead(documents(lengths), Stopwatch("chunk")))
    assert [len(record.text) for record in records] == lengths


def test_long_records_are_not_read_far_ahead() -> None:
    n_read = 0

    def counted() -> Iterator[Document]:
        nonlocal n_read
        for document in documents([600_000] * 10):
            n_read += 1
            yield document

    next(read_ahead(counted(), Stopwatch("chunk")))
    assert n_read == 2


def test_fault_of_a_file_comes_after_the_records_before_it() -> None:
    def faulty() -> Iterator[Document]:
        yield from documents([1, 1])
        raise RejectedInput(FAILED, "damaged")

    ahead, records = read_ahead(faulty(), Stopwatch("chunk")), []
    with pytest.raises(RejectedInput):
        records.extend(ahead)
    assert len(records) == 2


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, RunReport, float]:
    """A run of three units with a price, and how long it took."""
    folder = tmp_path_factory.mktemp("stages")
    for name in "abc":
        write_jsonl(
            folder, f"{name}.jsonl", {f"{name}{n}": f"text {n} of {name}" for n in range(9)}
        )
    recipe, started = recipe_for(folder), time.perf_counter()
    report = embed(recipe, Resources(unit="file"), price_per_hour=PRICE)
    return recipe, report, time.perf_counter() - started


def test_report_has_every_stage_units_commits_and_cost(
    finished: tuple[Recipe, RunReport, float],
) -> None:
    _, report, seconds = finished
    stages = asdict(report.stages)
    assert all(stages[name] > 0 for name in ("read", "chunk", "load", "forward", "write", "commit"))
    assert report.stages.work < seconds
    # Units of one process stand in a queue: the second waits for the first, the third for both.
    assert report.stages.wait > 0
    assert (report.units, report.commits) == (3, 1)
    assert report.cost == pytest.approx(report.stages.work * PRICE / 3_600)
    assert report.batch_fill is None and report.halvings == 0  # the hashing encoder has no batches


def test_ledger_adds_up_to_the_report(finished: tuple[Recipe, RunReport, float]) -> None:
    recipe, report, _ = finished
    entries = ledger.entries(ledger.open_ledger(table_of(recipe))).values()
    summed = sum((entry.stages for entry in entries), StageSeconds())
    assert asdict(summed) == pytest.approx(asdict(report.stages))
    assert sum(entry.cost or 0 for entry in entries) == pytest.approx(report.cost)


def test_history_and_status_have_stages_and_cost(
    finished: tuple[Recipe, RunReport, float],
) -> None:
    recipe, report, _ = finished
    (run,) = run_history(table_of(recipe), 5)
    assert asdict(run.stages) == pytest.approx(asdict(report.stages))
    state = status(recipe)
    assert asdict(state.runs[0].stages) == pytest.approx(asdict(report.stages))
    line = next(line for line in StatusView(state).lines() if line.startswith("run "))
    assert " · read " in line and " · forward " in line and f" · cost {report.cost:.4f}" in line


def test_report_shows_stages_wait_and_cost(finished: tuple[Recipe, RunReport, float]) -> None:
    _, report, _ = finished
    view = RunView(report)
    line = next(line for line in view.lines() if line.startswith("stages"))
    assert "read " in line and "commit " in line and f"cost {report.cost:.4f}" in line
    assert f"a unit waited {report.stages.wait / 3:.1f} s" in line
    assert "| forward |" in view.markdown() and "| wait |" in view.markdown()
    assert view.data()["stages"]["forward"] == report.stages.forward


def test_run_without_a_price_has_no_cost_and_a_run_without_work_no_stages(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"1": "text"})
    recipe = recipe_for(tmp_path)
    report = embed(recipe)
    assert report.cost is None
    assert status(recipe).runs[0].cost is None
    again = embed(recipe)
    assert again.stages == StageSeconds() and (again.units, again.commits) == (0, 0)


def test_checkpoint_tells_how_full_its_batches_were(tiny_qwen3: Path) -> None:
    encoder = Encoder.load(str(tiny_qwen3), device="cpu", batch_tokens=64)
    assert encoder.work == ModelWork()
    encoded = encoder.encode(["some words", "some more words", "others"] * 20)
    work = encoder.work
    assert work.tokens == encoded.n_tokens and work.room == 64 * work.batches
    assert work.fill is not None and 0 < work.fill <= 1
    assert work.token_wait_seconds > 0 and work.halvings == 0
    encoder.encode(["once more"])
    assert encoder.work.since(work).batches == 1


def test_filling_of_a_space_has_stages_and_cost(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"1": "some text", "2": "other text"})
    recipe = recipe_for(tmp_path)
    embed(recipe)
    model = ModelSpec(name="hashing", dim=16)
    job = space_job(recipe, model, Resources(), "run", PRICE)
    add_space(job)
    filled = [backfill_fragment(job, n) for group in fragments_to_fill(job) for n in group]
    report = space_report(job, filled, time.perf_counter())
    stages = report.stages
    assert stages.read > 0 and stages.load > 0 and stages.forward > 0 and stages.write > 0
    assert report.cost == stages.cost(PRICE)
