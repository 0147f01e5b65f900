"""Metrics of tables and their runs: true to the run, from its first second to after its death."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from embedding_core.errors import LakeError, SetupError
from embedding_core.lake.lock import Timing, acquire, locked
from embedding_core.lake.table import table_of
from embedding_core.recipe import ModelSpec, Recipe, Resources
from embedding_core.records import StageSeconds
from embedding_core.reports.exposition import METRICS, exposition
from embedding_core.runs.embed.execution import InProcess
from embedding_core.runs.embed.finish_stage import RunTally
from embedding_core.runs.embed.run import EmbedRun, embed
from embedding_core.runs.removal import drop
from embedding_core.runs.space.build import FilledFragment, space_job
from embedding_core.runs.space.release import Reembedding
from embedding_core.runs.watched import run_record
from embedding_core.runs.watched.run_record import read_record, record_idle_run, recorded
from embedding_core.runs.watched.table_figures import table_figures
from embedding_core.server.answering.watched_tables import FRESH_SECONDS, WatchedTables
from embedding_core.store.layout import run_path
from tests.driver import recipe_for, write_jsonl
from tests.embedlake.conftest import Embedlake, embedlake
from tests.watch.figures import FIGURES

__all__ = ["embedlake"]
METRICS_PAGE = Path(__file__).resolve().parents[2] / "docs" / "operations.md"
Samples = dict[tuple[str, str], float]


def samples(text: bytes | str) -> Samples:
    """Samples of the table ``docs`` by name and other label."""
    shown = text if isinstance(text, str) else text.decode()
    return {
        (
            sample.name,
            next((value for key, value in sample.labels.items() if key != "table"), ""),
        ): sample.value
        for family in text_string_to_metric_families(shown)
        for sample in family.samples
        if sample.labels["table"] == "docs"
    }


def now(recipe: Recipe) -> Samples:
    return samples(exposition([table_figures(recipe)]))


class Watched(InProcess):
    """Looks at the metrics while a run goes on, when its second unit is worked on."""

    def __init__(self, recipe: Recipe, then: Exception | None = None) -> None:
        self.recipe, self.then, self.seen = recipe, then, list[Samples]()

    def result(self, submitted: Any) -> Any:
        """See ``UnitRunner``."""
        self.seen.append(now(self.recipe))
        if self.then is not None and len(self.seen) == 2:
            raise self.then
        return super().result(submitted)


def run_with(execution: InProcess, recipe: Recipe) -> Any:
    one_by_one = Resources(unit="file", units_per_commit=1)
    return EmbedRun(recipe, one_by_one, execution, "run", price_per_hour=36.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("metrics")
    for name in "abc":
        write_jsonl(folder, f"{name}.jsonl", [{"id": name, "text": f"text {name}"}, {"id": "bad"}])
    return folder


@pytest.fixture(scope="module")
def watched(folder: Path) -> tuple[Recipe, Watched, Any, Samples]:
    """A run of three units, what was seen of it, its report, and what is seen afterwards."""
    recipe = recipe_for(folder, max_rejected_share=0.9)
    execution = Watched(recipe)
    report = run_with(execution, recipe).to_the_end(0.0)
    return recipe, execution, report, now(recipe)


def test_run_under_way_shows_its_queue_and_what_is_committed(
    watched: tuple[Recipe, Watched, Any, Samples],
) -> None:
    first, second, _ = watched[1].seen
    assert first["embedlake_run_under_way", ""] == second["embedlake_run_under_way", ""] == 1
    assert (second["embedlake_run_units", "queue"], second["embedlake_run_units", "done"]) == (2, 1)
    assert second["embedlake_run_commits", ""] == 1
    assert second["embedlake_run_tokens", ""] == 2 and second["embedlake_table_rows", ""] == 1
    assert ("embedlake_run_outcome", "done") not in second
    assert ("embedlake_run_good_timestamp_seconds", "") not in second  # none has ended yet
    taken = second["embedlake_lock_since_timestamp_seconds", "lock"]
    assert taken <= second["embedlake_lock_renewed_timestamp_seconds", "lock"]


def test_run_that_ended_shows_its_figures(watched: tuple[Recipe, Watched, Any, Samples]) -> None:
    _, _, report, seen = watched
    assert seen["embedlake_run_under_way", ""] == 0 and seen["embedlake_run_outcome", "done"] == 1
    assert seen["embedlake_run_outcome", "failed"] == 0
    assert (seen["embedlake_run_units", "queue"], seen["embedlake_run_units", "done"]) == (0, 3)
    assert seen["embedlake_run_tokens", ""] == report.tokens
    tokens_per_second = report.tokens / seen["embedlake_run_seconds", ""]
    assert seen["embedlake_run_tokens_per_second", ""] == pytest.approx(tokens_per_second)
    assert seen["embedlake_run_chunks", "embedded"] == 3
    assert seen["embedlake_rejects", "missing_field"] == seen["embedlake_run_rejects", ""] == 3
    assert seen["embedlake_run_fallbacks", "wider_type"] == 0
    assert seen["embedlake_run_stage_seconds", "forward"] == report.stages.forward
    assert seen["embedlake_run_cost", ""] == pytest.approx(report.cost)
    good = seen["embedlake_run_good_timestamp_seconds", ""]
    assert good == seen["embedlake_run_updated_timestamp_seconds", ""]
    assert good > seen["embedlake_run_started_timestamp_seconds", ""]
    assert not any(name.startswith("embedlake_lock") for name, _ in seen)


def test_run_with_nothing_to_do_is_good_and_leaves_the_figures(
    watched: tuple[Recipe, Watched, Any, Samples],
) -> None:
    recipe, _, _, before = watched
    embed(recipe)
    after = now(recipe)
    later = "embedlake_run_good_timestamp_seconds", ""
    assert after[later] > before[later]
    assert after["embedlake_run_tokens", ""] == before["embedlake_run_tokens", ""]


def test_run_that_an_error_ends_has_failed_and_the_good_one_is_remembered(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"a": "text"})
    recipe = recipe_for(tmp_path)
    embed(recipe)
    good = now(recipe)["embedlake_run_good_timestamp_seconds", ""]
    for name in "bc":
        write_jsonl(tmp_path, f"{name}.jsonl", {name: "text"})
    with pytest.raises(SetupError):
        run_with(Watched(recipe, SetupError("no model")), recipe).to_the_end(0.0)
    seen = now(recipe)
    assert seen["embedlake_run_outcome", "failed"] == 1 and seen["embedlake_run_under_way", ""] == 0
    assert seen["embedlake_run_good_timestamp_seconds", ""] == good
    assert seen["embedlake_run_commits", ""] == 1


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """A recipe whose table has one row."""
    write_jsonl(tmp_path, "a.jsonl", {"a": "text"})
    recipe = recipe_for(tmp_path)
    embed(recipe)
    return recipe


def test_run_that_lost_its_table_leaves_the_record_of_the_other(recipe: Recipe) -> None:
    table, tally = table_of(recipe), RunTally()
    with pytest.raises(LakeError), recorded(table, "first", tally):
        with recorded(table, "second", tally):
            pass
        raise LakeError("another run took over")
    record = read_record(table)
    assert record is not None and (record.run_id, record.state) == ("second", "running")


def test_build_of_a_space_has_a_record_beside_that_of_the_run(recipe: Recipe) -> None:
    table, model = table_of(recipe), ModelSpec(name="hashing", dim=16)
    so_far = Reembedding(space_job(recipe, model, Resources(), "build"), n_fragments=2)
    with recorded(table, "build", so_far, kind="build") as recorder:
        stages = StageSeconds(forward=2.0)
        so_far.filled.append(FilledFragment(0, 3, 1, 3, 9, 0, stages))
        recorder.progress(so_far)
        seen = now(recipe)
        assert (seen["embedlake_build_under_way", ""], seen["embedlake_build_tokens", ""]) == (1, 9)
        assert seen["embedlake_build_units", "queue"] == 1
        assert seen["embedlake_build_chunks", "failed"] == 1
        recorder.end(so_far, "refused")
    seen = now(recipe)
    assert seen["embedlake_build_outcome", "refused"] == 1
    assert seen["embedlake_run_outcome", "done"] == 1
    with pytest.raises(LakeError), recorded(table, "next", so_far, kind="build"):
        raise LakeError("another build took over")
    assert now(recipe)["embedlake_build_outcome", "failed"] == 1


def test_idle_run_ends_what_a_killed_run_left_and_not_one_that_lives(recipe: Recipe) -> None:
    table, clock = table_of(recipe), Clock()
    with recorded(table, "killed", RunTally(), clock=clock):
        pass  # and no word of its end
    with locked(table, "run killed", 0):
        lock = table_figures(recipe).locks[0]
        clock.now = lock.renewed + 1
        record_idle_run(table, "done", clock)
        living = read_record(table)
        clock.now = lock.renewed + run_record.DEAD_SECONDS + 1
        record_idle_run(table, "done", clock)
        dead = read_record(table)
    assert living is not None and (living.state, living.updated_at) == ("running", 1_000.0)
    assert living.good_at == lock.renewed + 1
    assert dead is not None and (dead.state, dead.good_at) == ("done", clock.now)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"stages": {}}', '{"stages": 1}', "\0"])
def test_damaged_record_is_as_good_as_none(recipe: Recipe, content: str) -> None:
    path = Path(run_path(recipe.lake.uri, recipe.lake.table))
    path.write_text(content)
    assert table_figures(recipe).run is None
    embed(recipe)
    assert now(recipe)["embedlake_run_outcome", "done"] == 1


def test_run_goes_on_when_its_record_cannot_be_written(recipe: Recipe, tmp_path: Path) -> None:
    path = Path(run_path(recipe.lake.uri, recipe.lake.table))
    path.unlink()
    path.mkdir()
    write_jsonl(tmp_path, "b.jsonl", {"b": "text"})
    assert embed(recipe).outcome == "done"
    assert "embedlake_run_tokens" not in {name for name, _ in now(recipe)}


def test_recall_of_the_index_stands_beside_what_the_recipe_asks_for(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", {f"d{n}": f"text {n} of {n % 7}" for n in range(300)})
    recipe = recipe_for(tmp_path, index={"min_rows": 256})
    embed(recipe)
    seen = now(recipe)
    assert seen["embedlake_index_recall", ""] >= seen["embedlake_index_recall_target", ""] == 0.95


def test_lock_of_a_dead_run_is_shown_as_old_as_it_is(recipe: Recipe) -> None:
    acquire(table_of(recipe), "build", "run dead", 0, Timing())
    seen = now(recipe)
    assert seen["embedlake_lock_since_timestamp_seconds", "build"] > 0


def test_every_metric_is_shown_by_a_table_that_has_everything_and_stands_in_the_docs() -> None:
    shown = text_string_to_metric_families(exposition([FIGURES]).decode())
    assert {family.name for family in shown if family.samples} == set(METRICS)
    page = METRICS_PAGE.read_text()
    shown_names = [name for name in METRICS if not name.startswith("embedlake_build_")]
    assert [name for name in shown_names if f"`{name}`" not in page] == []
    assert "`embedlake_build_…`" in page and len(METRICS) > len(shown_names)
    assert [name for name, metric in METRICS.items() if not metric.help] == []


def test_command_prints_every_table_and_writes_a_file_for_a_collector(
    recipe: Recipe, tmp_path: Path, embedlake: Embedlake
) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(recipe.model_dump(mode="json")))
    shown = embedlake("metrics", str(path))
    assert shown.code == 0 and samples(shown.out)["embedlake_table_rows", ""] == 1
    out = tmp_path / "embedlake.prom"
    assert embedlake("metrics", str(path), "-o", str(out)).code == 0
    assert samples(out.read_text())["embedlake_table_rows", ""] == 1
    data = embedlake("metrics", str(path), "--json").json
    assert data["tables"][0]["run"]["state"] == "done" and data["unreadable"] == {}
    twice = embedlake("metrics", str(path), str(path))
    assert twice.code == 2 and "docs, docs" in twice.err
    nameless = embedlake("metrics", str(path), "-o", str(tmp_path / "embedlake.txt"))
    assert nameless.code == 2 and ".prom" in nameless.err


def test_command_tells_of_a_table_that_cannot_be_read(
    recipe: Recipe, tmp_path: Path, embedlake: Embedlake
) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(recipe.model_dump(mode="json")))
    for manifest in (tmp_path / "lake" / "docs.lance" / "_versions").iterdir():
        manifest.write_bytes(b"damaged")
    shown = embedlake("metrics", str(path))
    assert shown.code == 1 and shown.err.startswith("docs: ")
    assert samples(shown.out) == {("embedlake_table_readable", ""): 0}


def test_table_before_its_first_run_has_no_rows_and_no_run(tmp_path: Path) -> None:
    seen = now(recipe_for(tmp_path))
    assert seen == {("embedlake_table_readable", ""): 1, ("embedlake_table_rows", ""): 0}


def test_server_reads_the_figures_again_when_they_are_old(recipe: Recipe, tmp_path: Path) -> None:
    clock = Clock()
    tables = WatchedTables([recipe], clock)
    assert tables.look()[0][0].rows == 1
    write_jsonl(tmp_path, "b.jsonl", {"b": "text"})
    embed(recipe)
    clock.now += FRESH_SECONDS - 1
    assert tables.look()[0][0].rows == 1
    clock.now += 1
    assert tables.look()[0][0].rows == 2


def test_server_goes_on_without_a_table(
    recipe: Recipe, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for manifest in (tmp_path / "lake" / "docs.lance" / "_versions").iterdir():
        manifest.write_bytes(b"damaged")
    assert WatchedTables([recipe]).look() == ([], ["docs"])
    assert any("no figures of table docs" in line.getMessage() for line in caplog.records)


def test_record_goes_with_the_table(recipe: Recipe) -> None:
    table = table_of(recipe)
    with recorded(table, "build", RunTally(), kind="build"):
        pass
    drop(recipe, 0)
    assert read_record(table) is read_record(table, "build") is None
