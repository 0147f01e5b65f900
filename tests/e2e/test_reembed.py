"""A table takes a new model by itself: announced, scheduled, killed; all of it for real."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import numpy.typing as npt
import psutil
import pytest

from embedding_core.lake.spaces.vector_columns import missing_rows
from embedding_core.lake.table import table_of
from embedding_core.recipe import ModelSpec, Recipe, Resources
from embedding_core.runs.job import load, locked_for
from embedding_core.runs.space.build import space_job
from embedding_core.runs.space.release import is_begun
from embedding_core.runs.table_status import status
from tests import waiting
from tests.driver import rows, run, write_jsonl
from tests.e2e.conftest import DONE, ENDED, FAILED, REFUSED, ROOT, Commands, wait_for
from tests.e2e.recipes import write_recipe

pytestmark = pytest.mark.e2e

Vectors = npt.NDArray[np.float32]
TEXTS = {
    "cat": "The cat sleeps on the sofa.",
    "tax": "Taxes rose again this year.",
    "sun": "Leaves turn light into sugar.",
    "sea": "Waves break on the harbour wall.",
}
DEPLOY = ("prefect", "--no-prompt", "deploy", "--prefect-file", "deployments/prefect.yaml",
          "--name", "reembed")  # fmt: skip
SCHEDULE = ("prefect", "--no-prompt", "deployment", "schedule")
EVERY_TWENTY_SECONDS = "* * * * * */20"
"""A cron with a sixth field, for seconds."""


# Announced and scheduled


@pytest.fixture
def deployment(commands: Commands, tmp_path: Path) -> Iterator[Path]:
    """The recipe of a small table whose deployment ``reembed`` listens, and runs by a schedule."""
    write_jsonl(tmp_path, "a.jsonl", TEXTS)
    # So few texts say nothing about a model: whatever nDCG@10 it loses is let pass.
    path = write_recipe(tmp_path, release={"follow": True, "max_ndcg_drop": 1.0})
    assert commands.run("embedlake", "embed", str(path)).code == DONE
    deployed = commands.run(*DEPLOY, "--param", f"recipe={path}", "--cron", EVERY_TWENTY_SECONDS)
    assert deployed.code == 0, deployed.out + deployed.err
    yield path
    assert commands.run("prefect", "deployment", "delete", "reembed/reembed").code == 0


def ended(commands: Commands, *, by_schedule: bool) -> list[dict[str, Any]]:
    """Runs of the deployment, the first one first, as far as they have ended."""
    found = commands.api(
        "/flow_runs/filter",
        {"deployments": {"name": {"any_": ["reembed"]}}, "sort": "EXPECTED_START_TIME_ASC"},
    )
    return [one for one in found
            if one["auto_scheduled"] == by_schedule and one["state_type"] in ENDED]  # fmt: skip


def report_of(commands: Commands, flow_run: dict[str, Any]) -> str:
    """The report that a run left in Prefect."""
    wanted = {"artifacts": {"flow_run_id": {"any_": [flow_run["id"]]},
                            "key": {"like_": "reembed-report-%"}}}  # fmt: skip
    (artifact,) = commands.api("/artifacts/filter", wanted)
    return str(artifact["data"])


def test_reembed_deployment_runs_by_schedule_and_builds_the_last_of_two_announced_models(
    commands: Commands, deployment: Path, minilm: str, tiny_qwen3: Path
) -> None:
    recipe = Recipe.load(deployment)
    old = plain_vectors(recipe)
    scheduled = wait_for(lambda: ended(commands, by_schedule=True))[0]
    assert scheduled["state_name"] == "Completed", scheduled["state"]
    assert "in service already" in report_of(commands, scheduled)
    # A slow machine would do nothing else than the runs of the schedule.
    assert commands.run(*SCHEDULE, "clear", "--accept-yes", "reembed/reembed").code == 0

    unread = commands.run("embedlake", "announce-model", "./tests", "--for", "others", "--json")
    assert unread.code == FAILED and "Nothing was announced" in unread.json["error"]
    other = commands.run("embedlake", "announce-model", "./x", "--for", "others", "--unchecked",
                         "--json").json  # fmt: skip
    assert (other["model"], other["resource"]) == (str(ROOT / "x"), "embedlake.model.others")
    # Nothing starts between the two announcements, however slow the machine is.
    assert commands.run("prefect", "work-pool", "pause", "embedlake").code == 0
    for model in (str(tiny_qwen3), minilm):
        told = commands.run("embedlake", "announce-model", model, "--json")
        assert (told.code, told.json["model"]) == (0, model), told.err
    assert commands.run("prefect", "work-pool", "resume", "embedlake").code == 0
    announced = wait_for(lambda: both(ended(commands, by_schedule=False)))
    states = {one["parameters"]["model"]: one["state_name"] for one in announced}
    assert states == {str(tiny_qwen3): "Superseded", minilm: "Completed"}

    (release,) = commands.run("embedlake", "releases", str(deployment), "--json").json["releases"]
    built = next(one for one in announced if one["parameters"]["model"] == minilm)
    assert (release["action"], release["to_model"]) == ("promote", minilm)
    assert release["run_id"] == built["id"]
    assert release["gate"]["verdict"] == "yes" and release["gate"]["queries"] > 0
    assert len(commands.run("embedlake", "status", str(deployment), "--json").json["spaces"]) == 2
    new, expected = plain_vectors(recipe), encoded(recipe.with_model(minilm).model, recipe)
    assert not np.allclose(new, old) and np.allclose(new, expected, atol=0.02)

    # The recipe still names the old model: the schedule leaves the new one in service.
    again = (*SCHEDULE, "create", "reembed/reembed", "--cron", EVERY_TWENTY_SECONDS)
    assert commands.run(*again).code == 0
    before = {one["id"] for one in ended(commands, by_schedule=True)}
    (later, *_) = wait_for(
        lambda: [one for one in ended(commands, by_schedule=True) if one["id"] not in before]
    )
    assert later["state_name"] == "Left", later["state"]


def test_reembed_with_a_model_that_is_none_or_that_the_gate_refuses_says_so(
    commands: Commands, tmp_path: Path
) -> None:
    write_jsonl(tmp_path, "a.jsonl", TEXTS)
    path = write_recipe(tmp_path, release={"max_latency_ratio": 1e-6})
    assert run(Recipe.load(path)).rows == len(TEXTS)
    refused = commands.run("embedlake", "reembed", str(path), "--model", "nonsense")
    assert refused.code == FAILED
    assert "cannot tell what model 'nonsense' is" in refused.err
    assert "Traceback" not in refused.err
    model = json.dumps({"name": "hashing", "dim": 16})
    refused = commands.run("embedlake", "reembed", str(path), "--model", model)
    assert refused.code == REFUSED and "verdict: NO" in refused.err, refused.err
    (refusal,) = commands.run("embedlake", "releases", str(path), "--json").json["releases"]
    assert (refusal["action"], refusal["to_model"]) == ("refuse", "hashing")
    assert refusal["run_id"] and list(refusal["gate"]["failed"]) == ["latency"]
    listed = commands.run("embedlake", "releases", str(path)).out
    assert "gate: no, nDCG@10" in listed and refusal["gate"]["failed"]["latency"] in listed


def both(found: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
    return found if len(found) == 2 else None


def plain_vectors(recipe: Recipe, column: str = "vector") -> Vectors:
    """(n_rows, dim) what LanceDB alone reads, in the order of the document ids."""
    table = lancedb.connect(recipe.lake.uri).open_table(recipe.lake.table)
    found = sorted(table.to_arrow().to_pylist(), key=lambda row: row["doc_id"])
    return np.array([row[column] for row in found], np.float32)


def encoded(model: ModelSpec, recipe: Recipe) -> Vectors:
    """(n_rows, dim) what the model makes of the table's texts, in the same order."""
    found = sorted(rows(recipe, "doc_id", "text"), key=lambda row: row["doc_id"])
    return load(model, Resources()).encode_documents([row["text"] for row in found])


def test_reembed_while_another_build_goes_on_ends_as_locked(
    commands: Commands, tmp_path: Path
) -> None:
    write_jsonl(tmp_path, "a.jsonl", TEXTS)
    path = write_recipe(tmp_path)
    recipe = Recipe.load(path)
    run(recipe)
    with locked_for(recipe, "another", 0, "build"):
        second = commands.run(
            "embedlake", "reembed", str(path), "--model", '{"name": "hashing", "dim": 16}',
            "--json", EMBEDLAKE_LOCK_WAIT_SECONDS="0",
        )  # fmt: skip
    assert (second.code, second.json["kind"]) == (FAILED, "Locked")
    assert ") is building a space of table 'docs'" in second.json["error"]
    assert len(status(recipe).spaces) == 1


# Cut off

MANY = 12
NEW: dict[str, Any] = {"name": waiting.NAME, "dim": 64}


@pytest.fixture
def fragmented(tmp_path: Path) -> Path:
    """The recipe of a table in many fragments."""
    for number in range(MANY):
        text = f"Box {number} holds {number} apples, some pears and what is left of the plums."
        write_jsonl(tmp_path, f"{number}.jsonl", {f"d{number}": text})
    path = write_recipe(
        tmp_path,
        maintain={"small_fragments": 10 * MANY},  # leave them as they are
        release={"max_ndcg_drop": 1.0},
    )
    run(Recipe.load(path))
    assert unfilled(path) == MANY == len(table_of(Recipe.load(path)).dataset().get_fragments())
    return path


def cut_off(commands: Commands, pieces: waiting.Pieces, path: Path, how: signal.Signals) -> None:
    """Start a build, and end it by a signal when it has filled some fragments and waits.

    SIGKILL hits Ray's processes too, as when a machine loses its power.
    """
    before = unfilled(path)
    pieces.allow(4)
    command = [str(Path(sys.executable).parent / "embedlake"), *build(path)]
    flow = psutil.Popen(
        command, cwd=ROOT, env=commands.environment | pieces.environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    wait_for(lambda: unfilled(path) < before or flow.poll() is not None)
    assert flow.poll() is None
    hit = [flow, *flow.children(recursive=True)] if how == signal.SIGKILL else [flow]
    for process in hit:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(how)
    assert flow.wait() != DONE


def build(path: Path) -> list[str]:
    return ["reembed", str(path), "--model", json.dumps(NEW), "--promote", "never", "--json"]


def unfilled(path: Path) -> int:
    """Fragments without vectors of the new space."""
    recipe = Recipe.load(path)
    job = space_job(recipe, ModelSpec.model_validate(NEW), Resources(), "test")
    if not is_begun(job):
        return MANY
    return len(missing_rows(table_of(recipe).dataset(), job.space_id))


def test_reembed_cut_off_gives_its_lock_back_and_the_next_run_fills_what_is_missing(
    commands: Commands, pieces: waiting.Pieces, fragmented: Path
) -> None:
    locks = fragmented.parent / "lake" / "_embedlake" / "docs" / "build"
    cut_off(commands, pieces, fragmented, signal.SIGTERM)
    (record,) = locks.glob("*.json")
    assert json.loads(record.read_bytes())["given_back"]
    after_term = unfilled(fragmented)

    cut_off(commands, pieces, fragmented, signal.SIGKILL)
    # The killed run's lock would expire in half a minute; that has its own tests.
    shutil.rmtree(locks)

    pieces.allow_all()
    done = commands.run("embedlake", *build(fragmented), **pieces.environment)
    assert done.json["outcome"] == "built", done.out
    assert 0 < done.json["space"]["fragments"] < after_term < MANY
    recipe = Recipe.load(fragmented)
    expected = encoded(ModelSpec(name="hashing", dim=NEW["dim"]), recipe)
    assert np.allclose(plain_vectors(recipe, done.json["column"]), expected, atol=2e-3)
