from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from flows.doctor import diagnose
from flows.settings import Settings
from tests.driver import recipe_for


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
