from __future__ import annotations

import shutil
from pathlib import Path

from flows.doctor import diagnose
from flows.settings import Settings
from tests.driver import recipe_for


def test_doctor_shows_which_checkpoint_latest_is(tmp_path: Path, tiny_qwen3: Path) -> None:
    shutil.copytree(tiny_qwen3, tmp_path / "checkpoints" / "2026-11-01")
    recipe = recipe_for(tmp_path, model={"name": f"{tmp_path}/checkpoints/latest"})
    [model] = [check for check in diagnose(Settings(), recipe) if check.name == "model"]
    assert model.ok and "checkpoints/latest at 2026-11-01: 32 dimensions" in model.detail
