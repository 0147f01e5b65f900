"""What ``embedlake doctor`` finds, and what it says to do."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from embedding_core.recipe import Resources
from embedlake.cli.doctor import diagnose
from embedlake.diagnosis.installation import REGISTRIES
from embedlake.settings import Settings
from tests.driver import recipe_for, write_jsonl
from tests.encoder.remote.stub_engine import stub_engine

ROOT = Path(__file__).resolve().parents[2]


def test_doctor_shows_which_checkpoint_latest_is(tmp_path: Path, tiny_qwen3: Path) -> None:
    shutil.copytree(tiny_qwen3, tmp_path / "checkpoints" / "2026-11-01")
    recipe = recipe_for(tmp_path, model={"name": f"{tmp_path}/checkpoints/latest"})
    [model] = [check for check in diagnose(Settings(), recipe) if check.name == "model"]
    assert model.ok and "checkpoints/latest at 2026-11-01: 32 dimensions" in model.detail


def test_doctor_asks_the_server_of_a_model(tmp_path: Path) -> None:
    with stub_engine(max_tokens=300) as engine:
        section = {"name": engine.url, "tokenizer": "cautious", "dim": None}
        recipe = recipe_for(tmp_path, model=section)
        [model] = [check for check in diagnose(Settings(), recipe) if check.name == "model"]
        assert model.ok
        assert model.detail == f"stub at {engine.url}: 48 dimensions, 300 tokens, server"
    [model] = [check for check in diagnose(Settings(), recipe) if check.name == "model"]
    assert not model.ok and "look whether it runs" in model.detail


def test_doctor_lake_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    checks = {check.name: check for check in diagnose(Settings(), recipe_for(tmp_path))}
    assert checks["lake"].ok and not (tmp_path / "lake").exists()
    nowhere = recipe_for(tmp_path, lake={"uri": "/proc/embedlake"})
    checks = {check.name: check for check in diagnose(Settings(), nowhere)}
    assert not checks["lake"].ok and "/proc cannot be written" in checks["lake"].detail


@pytest.mark.parametrize(
    ("resources", "said"),
    [
        ({"gpus_per_task": 99}, "asks for 99 GPUs"),
        ({"cpus_per_task": 9_999}, "asks for 9,999 CPUs"),
        ({"device": "cuda", "gpus_per_task": 0}, "set device to auto or cpu"),
    ],
)
def test_doctor_says_what_no_task_could_get(resources: dict[str, Any], said: str) -> None:
    settings = Settings(resources=Resources(**resources))
    (ray,) = (check for check in diagnose(settings, None) if check.name == "ray")
    assert not ray.ok and said in ray.detail


def test_doctor_judges_the_records_it_samples(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", [{"id": str(n), "title": "x", "body": "y"} for n in range(40)])
    (source,) = (
        check for check in diagnose(Settings(), recipe_for(tmp_path)) if check.name == "source"
    )
    assert not source.ok and source.detail.startswith("of 40 sampled records 40 rejected")
    for word in ("missing_field", "'text'", "'id', 'title', 'body'"):
        assert word in source.detail


def test_doctor_looks_into_every_registry_there_is() -> None:
    lines = set()
    for path in (ROOT / "embedding_core").rglob("*.py"):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        names = re.findall(r"^(\w+)(?:: [^=\n]+)? = Registry\b", path.read_text(), re.MULTILINE)
        lines |= {f"{module}:{name}" for name in names}
    assert set(REGISTRIES) == lines


@pytest.mark.slow
def test_doctor_names_the_package_of_a_broken_plugin(tmp_path: Path) -> None:
    info = tmp_path / "broken_reports-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-reports\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[embedlake.reports]\nsketch = no_such_module:Sketch\n")
    command = [Path(sys.executable).parent / "embedlake", "doctor", "--json"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "EMBEDLAKE_HOME": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    (plugins,) = (c for c in json.loads(done.stdout)["checks"] if c["name"] == "plugins")
    assert done.returncode == 1 and not plugins["ok"]
    assert "broken-reports" in plugins["detail"] and "uninstall" in plugins["detail"]
