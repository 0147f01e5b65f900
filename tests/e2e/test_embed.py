"""The main job on a real Prefect server, a real worker, real Ray."""

from __future__ import annotations

import json
import logging
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import lancedb
import pytest
from prefect.results import ResultRecord, ResultRecordMetadata

from embedding_core.lake.table import table_of
from embedding_core.recipe import Recipe
from embedding_core.runs.embed.planning import plan
from embedding_core.runs.embed.units import work_units
from embedding_core.runs.job import locked_for
from embedlake.orchestration.naming import artifact_key
from tests import waiting
from tests.driver import rejects, rows, run, texts, write_jsonl
from tests.e2e.conftest import DONE, FAILED, REJECTED, ROOT, Commands, run_command, wait_for
from tests.e2e.recipes import N_FILES, write_files, write_recipe
from tests.watch.collector import collector

pytestmark = pytest.mark.e2e

ONE_FILE_PER_UNIT = ("--set", "unit_bytes=1")


def test_embed_then_again_then_changed_then_removed(commands: Commands, tmp_path: Path) -> None:
    files = write_files(tmp_path)
    path = write_recipe(tmp_path)
    recipe = Recipe.load(path)

    first = commands.run("embedlake", "embed", str(path), "--json", *ONE_FILE_PER_UNIT)
    assert first.code == DONE, first.err
    assert (first.json["embedded"], first.json["rows"]) == (N_FILES, N_FILES)
    runs = commands.task_runs(first.json["run_id"])
    assert sorted(run["state_name"] for run in runs) == ["Completed"] * 2 * N_FILES

    again = commands.run("embedlake", "embed", str(path), "--json")
    assert again.code == DONE, again.err
    assert commands.task_runs(again.json["run_id"]) == []
    assert again.json["version"] == first.json["version"]

    write_jsonl(tmp_path, "file-1.jsonl", {"d1": "now about pears"})
    changed = commands.run("embedlake", "embed", str(path), "--json")
    assert "tasks run in this process, without Ray" in changed.err
    assert "starting Ray" in first.err and "starting Ray" not in changed.err
    assert len(commands.task_runs(changed.json["run_id"])) == 2  # chunk and embed of one unit
    assert texts(recipe)[1] == "now about pears" and changed.json["rows"] == N_FILES

    files[3].unlink()
    removed = commands.run("embedlake", "embed", str(path), "--json")
    assert commands.task_runs(removed.json["run_id"]) == []
    assert (removed.json["removed"], removed.json["rows"]) == (1, N_FILES - 1)
    assert "d3" not in {row["doc_id"] for row in rows(recipe, "doc_id")}


def test_embed_tasks_that_each_take_all_cores_follow_each_other(
    commands: Commands, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        write_jsonl(tmp_path, f"{name}.jsonl", {f"{name}{n}": f"{name} {n}" for n in range(4_000)})
    path = write_recipe(tmp_path)
    command = ("embedlake", "embed", str(path), "--json", *ONE_FILE_PER_UNIT)
    run = commands.run(*command, EMBEDLAKE_RAY_CPUS="2")
    times = sorted(
        (datetime.fromisoformat(one["start_time"]), datetime.fromisoformat(one["end_time"]))
        for one in commands.task_runs(run.json["run_id"]) if one["name"].startswith("embed")
    )  # fmt: skip
    (_, ended), (started, _) = times
    assert ended <= started


def test_deployment_run_embeds_with_the_real_model_and_search_finds(
    commands: Commands, tmp_path: Path, minilm: str
) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"cat": "The cat sleeps on the sofa.", "tax": "Taxes rose."})
    path = write_recipe(tmp_path, model={"name": minilm, "dim": None})
    deployed = commands.run(
        "prefect", "--no-prompt", "deploy", "--prefect-file", "deployments/prefect.yaml", "--all"
    )
    assert deployed.code == 0, deployed.out + deployed.err
    run = commands.run(
        "prefect", "deployment", "run", "embed/embed", "--watch", "--param", f"recipe={path}"
    )
    assert run.code == 0, run.out + run.err
    recipe = Recipe.load(path)
    kinds = ("embed-plan", "embed-progress", "embed-report")
    keys = {one["key"] for one in commands.api("/artifacts/latest/filter", {})}
    assert {artifact_key(kind, recipe) for kind in kinds} <= keys
    tags = {"tags": {"all_": ["table:docs", f"recipe:{recipe.name}"]}}
    names = {one["name"] for one in commands.api("/flow_runs/filter", {"flow_runs": tags})}
    assert any(re.fullmatch(r"embed docs \d+", name) for name in names)

    found = commands.run("embedlake", "search", str(path), "a pet is napping", "-k", "1", "--json")
    assert found.json["hits"][0]["doc_id"] == "cat"
    maintained = commands.run(
        "prefect", "deployment", "run", "maintain/maintain", "--watch", "--param", f"recipe={path}"
    )
    assert maintained.code == 0, maintained.out + maintained.err
    report = commands.run("embedlake", "maintain", str(path), "--json")
    assert report.code == 0 and report.json["tables"][0]["after"]["rows"] == 2
    keys = {one["key"] for one in commands.api("/artifacts/latest/filter", {})}
    assert artifact_key("maintain-report", recipe) in keys

    plain = lancedb.connect(tmp_path / "lake").open_table("docs")
    vector = plain.search().where("doc_id = 'cat'").to_list()[0]["vector"]
    assert plain.search(vector).limit(1).to_list()[0]["doc_id"] == "cat"


def test_embed_killed_before_its_commit_reuses_what_was_embedded(
    commands: Commands, pieces: waiting.Pieces, tmp_path: Path
) -> None:
    write_files(tmp_path)
    path = write_recipe(tmp_path, model={"name": waiting.NAME})
    pieces.allow(3)  # one tells whether the model is the same
    staged = tmp_path / "lake" / "_embedlake" / "docs" / "staged"
    command = ["embedlake", "embed", str(path), *ONE_FILE_PER_UNIT]
    flow = subprocess.Popen(
        [str(Path(sys.executable).parent / command[0]), *command[1:]],
        cwd=ROOT, env=commands.environment | pieces.environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    wait_for(lambda: len(list(staged.glob("*/report.json"))) >= 2 or flow.poll() is not None)
    flow.send_signal(signal.SIGKILL)
    flow.wait()
    assert Recipe.load(path) and not _committed(tmp_path)
    # The killed run's lock would expire in half a minute; that has its own tests.
    shutil.rmtree(tmp_path / "lake" / "_embedlake" / "docs" / "lock")

    pieces.allow_all()
    command = ["embedlake", "embed", str(path), "--json", *ONE_FILE_PER_UNIT]
    again = commands.run(*command, **pieces.environment)
    assert again.code == DONE, again.err
    assert len(commands.task_runs(again.json["run_id"])) < 2 * N_FILES  # two for each unit left
    assert (again.json["embedded"], again.json["rows"]) == (N_FILES, N_FILES)


def _committed(folder: Path) -> bool:
    table = lancedb.connect(folder / "lake").open_table("docs")
    return bool(table.count_rows())


def test_embed_table_that_is_lost_is_made_again(commands: Commands, tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"x": "words"})
    path = write_recipe(tmp_path)
    assert commands.run("embedlake", "embed", str(path)).code == DONE
    shutil.rmtree(tmp_path / "lake" / "docs.lance")
    again = commands.run("embedlake", "embed", str(path), "--json")
    assert again.code == DONE, again.err
    assert texts(Recipe.load(path)) == ["words"]


class Poison:
    """Leaves a file behind where it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return Path.touch, (self.marker,)


def test_embed_poisoned_result_files_run_no_code(commands: Commands, tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"x": "words"})
    path, marker = write_recipe(tmp_path), tmp_path / "marker"
    (unit,) = work_units(plan(Recipe.load(path)), 1)
    kept = commands.home / "prefect" / "storage"
    for folder in (kept, tmp_path / "lake" / "_embedlake" / "docs" / "results"):
        folder.mkdir(parents=True, exist_ok=True)
        for key in ("chunk-1-{}", "embed-1-{}", "chunk-{}", "embed-{}", "{}"):
            record = ResultRecord(result=Poison(marker), metadata=ResultRecordMetadata())
            (folder / key.format(unit.unit_id)).write_bytes(record.serialize())
    before = sorted(kept.iterdir())

    keep_results = {"PREFECT_RESULTS_PERSIST_BY_DEFAULT": "true"}
    done = commands.run("embedlake", "embed", str(path), **keep_results)
    assert done.code == DONE, done.err
    assert not marker.exists() and sorted(kept.iterdir()) == before
    assert texts(Recipe.load(path)) == ["words"]


@pytest.fixture
def ray_folder() -> Iterator[Path]:
    """Where Ray keeps the logs of its workers: paths of its sockets have to be short."""
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as path:
        yield Path(path)


def json_lines(text: str) -> list[dict[str, Any]]:
    """Log lines that are JSON objects."""
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def test_embed_unit_that_fails_leaves_the_others_and_is_done_by_the_next_run(
    commands: Commands, tmp_path: Path, ray_folder: Path
) -> None:
    write_files(tmp_path)
    path = write_recipe(tmp_path)
    planned = plan(Recipe.load(path))
    units = list(work_units(planned, 1))
    # A file where the unit's folder belongs: every attempt to stage something there fails.
    obstacle = tmp_path / "lake/_embedlake/docs/staged" / units[2].unit_id
    obstacle.parent.mkdir(parents=True)
    obstacle.touch()

    command = ("embedlake", "embed", str(path), "--json", *ONE_FILE_PER_UNIT)
    with collector() as traces:
        failed = commands.run(
            *command,
            EMBEDLAKE_LOG_FORMAT="json",
            EMBEDLAKE_TRACES="otlp",
            EMBEDLAKE_PRICE_PER_HOUR="3600",
            OTEL_EXPORTER_OTLP_ENDPOINT=traces.url,
            TMPDIR=str(ray_folder),
        )
    assert failed.code == FAILED
    assert failed.json["rows"] == N_FILES - 1 and len(failed.json["failures"]) == 1
    assert "file-2.jsonl" in failed.json["failures"][0]
    attempts = [r["run_count"] for r in commands.task_runs(failed.json["run_id"])
                if r["state_type"] == "FAILED"]  # fmt: skip
    assert max(attempts) == 4  # the first and three retries

    # Whoever watches the run finds the failure by run, unit and file, in every process.
    run_id, unit_id = failed.json["run_id"], units[2].unit_id
    about = {"run": run_id, "unit": unit_id, "file": units[2].files[0].file.uri}
    errors = [line for line in json_lines(failed.err) if line.get("level") == "ERROR"]
    assert any(about.items() <= line.items() for line in errors), failed.err
    of_workers = [
        line
        for log in ray_folder.glob("ray/session_2*/logs/worker-*.err")
        for line in json_lines(log.read_text())
    ]
    attempts = [line for line in of_workers if about.items() <= line.items()]
    assert len([line for line in attempts if line.get("level") == "WARNING"]) == 4, of_workers
    assert any("while working on" in line.get("traceback", "") for line in attempts)
    logs = commands.api("/logs/filter", {"logs": {"flow_run_id": {"any_": [run_id]}}})
    assert any(
        line["level"] >= logging.ERROR and unit_id[:12] in line["message"]
        and about["file"] in line["message"] and line["task_run_id"] for line in logs
    )  # fmt: skip
    # All spans are of one trace, those of workers below that of the run.
    (run_span,) = (span for span in traces.spans if span.name == "run")
    assert {span.trace_id for span in traces.spans} == {run_span.trace_id}
    assert run_span.attributes["embedlake.run"] == run_id
    counts = Counter(span.name for span in traces.spans if span.parent_id == run_span.span_id)
    assert (counts["plan"], counts["chunk"], counts["embed"]) == (1, 3 + 4, 3)
    assert counts["commit"] and counts["index"] == counts["verify"] == 1
    # The record of the run and its report have figures that came home from the workers.
    assert failed.json["cost"] == pytest.approx(
        sum(failed.json["stages"].values()) - failed.json["stages"]["wait"]
    )
    metrics = commands.run("embedlake", "metrics", str(path)).out
    assert 'embedlake_run_outcome{outcome="failed",table="docs"} 1.0' in metrics
    assert 'embedlake_run_units{state="done",table="docs"} 3.0' in metrics

    obstacle.unlink()
    again = commands.run(*command)
    assert again.code == DONE and again.json["embedded"] == 1
    assert again.json["rows"] == N_FILES


def test_embed_huge_file_by_a_function_beside_the_recipe_is_many_units_and_one_commit(
    commands: Commands, tmp_path: Path
) -> None:
    # Words of 20 kB: 3 MB of text that are few tokens. An id comes again in another slice.
    words = {f"d{n}": f"{n}" + "x" * 20_000 for n in range(160)}
    path = write_jsonl(tmp_path, "big.jsonl", words)
    with path.open("a") as file:
        file.write('{"id": "d3", "text": "again"}\n')
    (tmp_path / "map_for_workers.py").write_text(
        "def rows(record):\n    return [record | {'id': record['id'] + end} for end in 'xy']\n"
    )
    recipe = write_recipe(tmp_path, source={"map": "map_for_workers:rows"}, max_rejected_share=0.5)
    run = commands.run("embedlake", "embed", str(recipe), "--json", *ONE_FILE_PER_UNIT)
    assert run.code == DONE, run.err
    assert "starting Ray" in run.err
    assert (run.json["rows"], run.json["rejects"]) == (320, {"duplicate_id": 2})
    names = {row["doc_id"] for row in rows(Recipe.load(recipe), "doc_id")}
    assert names == {f"d{n}{end}" for n in range(160) for end in "xy"}
    tasks = [one["name"] for one in commands.task_runs(run.json["run_id"])]
    assert {name for name in tasks if name.startswith("chunk")} >= {
        f"chunk big.jsonl [{n}/4]" for n in (1, 2, 3, 4)
    }


def test_embed_surveys_on_ray_what_it_chooses_among(commands: Commands, tmp_path: Path) -> None:
    for name in "abcd":
        write_jsonl(tmp_path, f"{name}.jsonl", {f"{name}{n}": f"text {n % 9}" for n in range(30)})
    sample = {"rows": 5, "seed": 1}
    source = {"uri": "./src", "id": "id", "deduplicate": True, "sample": sample}
    recipe = write_recipe(tmp_path, source=source)
    path, loaded = str(recipe), Recipe.load(recipe)
    planned = commands.run("embedlake", "plan", path, "--json").json
    assert planned["choice"]["files_to_survey"] == 4
    answer = commands.run("embedlake", "embed", path, "--json", *ONE_FILE_PER_UNIT)
    assert answer.code == DONE and "starting Ray" in answer.err, answer.err
    report = answer.json
    assert (report["rows"], report["duplicates"], report["left_out"]) == (5, 111, 4)
    assert report["rejects"] == {"duplicate_text": 111}
    names = Counter(task["name"].split()[0] for task in commands.task_runs(report["run_id"]))
    assert names == {"survey": 4, "chunk": 4, "embed": 4}
    settled = commands.run("embedlake", "plan", path, "--json").json
    assert settled["nothing_to_do"] and settled["choice"]["chosen"] == 5
    table = loaded.lake.model_copy(update={"table": "here"})
    here = loaded.model_copy(update={"lake": table})
    run(here)
    assert rows(here, "doc_id") == rows(loaded, "doc_id")


def test_embed_index_is_trained_in_a_task_of_its_own_when_due(
    commands: Commands, tmp_path: Path
) -> None:
    write_jsonl(tmp_path, "many.jsonl", {f"d{n}": f"document number {n}" for n in range(300)})
    recipe = write_recipe(tmp_path, index={"min_rows": 256})
    first = commands.run("embedlake", "embed", str(recipe), "--json")
    assert first.code == DONE, first.err
    assert first.json["index"]["rows_at_training"] == 300 and first.json["index"]["recall"] >= 0.95
    names = [one["name"] for one in commands.task_runs(first.json["run_id"])]
    assert names.count("train an index") == 1
    write_jsonl(tmp_path, "one.jsonl", {"one": "more"})
    second = commands.run("embedlake", "embed", str(recipe), "--json")
    assert second.json["index"]["rows_at_training"] == 300
    names = [one["name"] for one in commands.task_runs(second.json["run_id"])]
    assert "train an index" not in names


def test_embed_rejects_end_with_three_and_are_listed(commands: Commands, tmp_path: Path) -> None:
    write_jsonl(tmp_path, "good.jsonl", {"x": "words"})
    (tmp_path / "src" / "bad.jsonl").write_text('{"id": "1", "text": "first"}\n{"id": \n')
    path = write_recipe(tmp_path)
    run = commands.run("embedlake", "embed", str(path), "--json")
    assert run.code == REJECTED
    assert run.json["rejects"] == {"malformed_json": 1}
    assert [(one["reason"], one["position"]) for one in rejects(Recipe.load(path))] == [
        ("malformed_json", 1)
    ]
    (state,) = commands.api(
        "/flow_runs/filter", {"flow_runs": {"id": {"any_": [run.json["run_id"]]}}}
    )
    assert (state["state_type"], state["state_name"]) == ("COMPLETED", "Rejects")


def test_embed_without_any_api_starts_one_and_stops_it(
    no_api: dict[str, str], tmp_path: Path
) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"x": "words"})
    path = write_recipe(tmp_path)
    run = run_command(["embedlake", "embed", str(path), "--json"], no_api)
    assert run.code == DONE, run.err
    assert run.json["rows"] == 1
    assert "http" not in run.err  # no link that dies with the server
    again = run_command(["embedlake", "embed", str(path), "--json"], no_api)
    assert again.code == DONE, again.err
    assert "starting one" not in again.err


def test_embed_resource_on_the_command_line_wins_over_the_environment(
    commands: Commands, tmp_path: Path
) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"x": "words"})
    path = write_recipe(tmp_path)
    # With a GPU per task Ray would wait for one for ever; 0 is also the built-in default.
    command = ("embedlake", "embed", str(path), "--json", "--set", "gpus_per_task=0")
    run = commands.run(*command, EMBEDLAKE_RESOURCES__GPUS_PER_TASK="1")
    assert run.code == DONE, run.err


def test_embed_tiny_qwen3_checkpoint_end_to_end(
    commands: Commands, tmp_path: Path, tiny_qwen3: Path
) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"x": "some words", "y": "other words"})
    path = write_recipe(tmp_path, model={"name": str(tiny_qwen3), "dim": None, "dtype": "fp32"})
    run = commands.run("embedlake", "embed", str(path), "--json", EMBEDLAKE_RAY_ADDRESS="local")
    assert run.code == DONE, run.err
    assert run.err.count(f": loading the model {tiny_qwen3}") == 1, "the flow says it of its worker"
    (ready,) = re.findall(
        r"worker \d+ on \S+: the model \S+ is ready after .* fp32 on cpu>", run.err
    )
    logs = commands.api("/logs/filter", {"logs": {"flow_run_id": {"any_": [run.json["run_id"]]}}})
    assert [one["task_run_id"] for one in logs if one["message"] == ready] == [None]
    hits = commands.run("embedlake", "search", str(path), "some words", "--json").json["hits"]
    assert len(hits) == 2


def test_embed_into_the_table_of_another_recipe_says_so_and_shows_no_traceback(
    commands: Commands, tmp_path: Path
) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"x": "words"})
    recipe = Recipe.load(write_recipe(tmp_path, name="first"))
    run(recipe)
    version = table_of(recipe).dataset().version
    other = write_recipe(tmp_path, name="second", source={"include": ["b.jsonl"]})
    write_jsonl(tmp_path, "b.jsonl", {"y": "other words"})
    refused = commands.run("embedlake", "embed", str(other), "--json")
    assert (refused.code, refused.json["kind"]) == (FAILED, "LakeError")
    assert "belongs to the recipe 'first', not to 'second'; use another" in refused.err
    assert "Traceback" not in refused.err
    assert table_of(recipe).dataset().version == version


def test_embed_while_another_run_goes_on_ends_as_locked_and_changes_nothing(
    commands: Commands, tmp_path: Path
) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"x": "words"})
    path = write_recipe(tmp_path)
    with locked_for(Recipe.load(path), "another", 0):
        run = commands.run(
            "embedlake", "embed", str(path), "--json", EMBEDLAKE_LOCK_WAIT_SECONDS="0"
        )
    assert (run.code, run.json["kind"]) == (FAILED, "Locked")
    assert "run another (host " in run.json["error"]
    assert ") is working on table 'docs'" in run.json["error"]
    assert "Traceback" not in run.err and run.json["error"] in run.err
    assert not (tmp_path / "lake" / "docs.lance").exists()


def test_embed_twice_at_the_same_time_every_row_stands_once(
    commands: Commands, tmp_path: Path
) -> None:
    write_files(tmp_path)
    path = write_recipe(tmp_path)
    program = str(Path(sys.executable).parent / "embedlake")
    # The run that comes second waits for the first, however long that takes here.
    environment = {**commands.environment, "EMBEDLAKE_LOCK_WAIT_SECONDS": "600"}
    both = [
        subprocess.Popen(
            [program, "embed", str(path), *ONE_FILE_PER_UNIT],
            env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        for _ in range(2)
    ]  # fmt: skip
    assert [process.wait() for process in both] == [DONE, DONE]
    assert [row["doc_id"] for row in rows(Recipe.load(path), "doc_id")] == [
        f"d{number}" for number in range(N_FILES)
    ]
