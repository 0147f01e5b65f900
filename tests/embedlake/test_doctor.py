from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from embedding_core.recipe import Resources
from embedlake.cli.doctor import diagnose
from embedlake.settings import Settings
from tests.driver import recipe_for, write_jsonl


def test_doctor_shows_which_checkpoint_latest_is(tmp_path: Path, tiny_qwen3: Path) -> None:
    shutil.copytree(tiny_qwen3, tmp_path / "checkpoints" / "2026-11-01")
    recipe = recipe_for(tmp_path, model={"name": f"{tmp_path}/checkpoints/latest"})
    [model] = [check for check in diagnose(Settings(), recipe) if check.name == "model"]
    assert model.ok and "checkpoints/latest at 2026-11-01: 32 dimensions" in model.detail


def test_doctor_lake_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "src").mkdir()
    found = {check.name: check for check in diagnose(Settings(), recipe_for(tmp_path))}
    assert found["lake"].ok and not (tmp_path / "lake").exists()
    # Root may write everywhere but on a read-only mount, where this is what the system says.
    monkeypatch.setattr(os, "access", lambda path, _mode: Path(path) != tmp_path)
    found = {check.name: check for check in diagnose(Settings(), recipe_for(tmp_path))}
    assert not found["lake"].ok and f"{tmp_path} cannot be written" in found["lake"].detail


@pytest.mark.parametrize(
    ("resources", "said"),
    [
        ({"gpus_per_task": 99}, "asks for 99 GPUs"),
        ({"cpus_per_task": 9_999}, "asks for 9999 CPUs"),
        ({"device": "cuda", "gpus_per_task": 0}, "set device to auto or cpu"),
    ],
)
def test_doctor_says_what_no_task_could_get(resources: dict[str, Any], said: str) -> None:
    settings = Settings(resources=Resources(**resources))
    (ray,) = (check for check in diagnose(settings, None) if check.name == "ray")
    assert not ray.ok and said in ray.detail


def test_doctor_judges_the_records_it_samples(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", [{"id": str(n), "title": "x", "body": "y"} for n in range(40)])
    (source,) = (one for one in diagnose(Settings(), recipe_for(tmp_path)) if one.name == "source")
    assert not source.ok and source.detail.startswith("of 40 sampled records 40 rejected")
    for word in ("missing_field", "'text'", "id, title, body"):
        assert word in source.detail
