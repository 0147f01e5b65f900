"""A recipe of ``deployments/recipes`` by the command line, on Prefect and Ray."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.corpora.conftest import Trial
from tests.driver import rows
from tests.e2e.conftest import DONE, Commands

pytestmark = pytest.mark.e2e

N_SHARDS = 4
FIRST_SHARDS = {"**/*.arrow": "**/data-0000[0-3]*.arrow"}
"""Of 99; a shard takes two tasks, and each some seconds on Ray and Prefect."""


def test_web_shards_are_a_task_each_and_are_then_done(commands: Commands, tmp_path: Path) -> None:
    trial = Trial("web", tmp_path, "hashing", FIRST_SHARDS)
    embed = ("embedlake", "embed", str(trial.path), "--set", "unit=file", "--json")
    counted = commands.run("embedlake", "stats", str(trial.path), "--json").json["whole"]

    first = commands.run(*embed)
    assert first.code == DONE, first.err
    tasks = commands.task_runs(first.json["run_id"])
    assert [run["state_name"] for run in tasks] == ["Completed"] * 2 * N_SHARDS  # chunk and embed
    assert (first.json["added"], first.json["rows"]) == (N_SHARDS, counted["chunks"])
    assert (first.json["documents"], first.json["tokens"]) == (
        counted["documents"], counted["tokens"],
    )  # fmt: skip
    assert len({row["source_uri"] for row in rows(trial.recipe)}) == N_SHARDS

    again = commands.run(*embed)
    assert again.code == DONE, again.err
    assert commands.task_runs(again.json["run_id"]) == []
    assert again.json["version"] == first.json["version"]
