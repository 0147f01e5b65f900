"""Short stories of the state machine, with the shim and without, and the oracle of torn files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.machine import ROOT
from embedding_core.lake.table import table_of
from experiments.faults import shim
from experiments.faults.world import torn_files
from experiments.machine.editions import Wording, content_of, lines_of
from tests.driver import recipe_for, run

STEPS = 15


def told(folder: Path, seed: int, examples: int, **environment: str) -> dict[str, Any]:
    """Tell a few stories in a process of their own; the result."""
    command = [sys.executable, "-m", "experiments.machine", "--results", str(folder)]
    counts = ["--seed", str(seed), "--examples", str(examples), "--steps", str(STEPS)]
    done = subprocess.run(
        [*command, *counts], capture_output=True, text=True, cwd=ROOT, env=os.environ | environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result: dict[str, Any] = json.loads((folder / "machine.json").read_text())
    return result


@pytest.mark.slow
@pytest.mark.skipif(shim.missing() is not None, reason=str(shim.missing()))
def test_machine_few_stories_violate_nothing_and_are_not_told_twice(tmp_path: Path) -> None:
    result = told(tmp_path, seed=3, examples=3)
    assert result["steps"] >= 3 * STEPS and result["violations"] == []
    assert "run: killed" in result["endings"]
    assert told(tmp_path, seed=3, examples=3)["parts"] == result["parts"]


@pytest.mark.slow
def test_machine_without_gcc_kills_runs_between_units(tmp_path: Path) -> None:
    result = told(tmp_path, seed=6, examples=2, PATH="")
    assert result["violations"] == []
    assert "run: killed" in result["endings"]


def test_torn_files_are_those_with_neither_version_whole(tmp_path: Path) -> None:
    lines = lines_of(0, 4)
    (tmp_path / "src").mkdir()
    path = tmp_path / "src" / "a.jsonl"
    path.write_text("".join(line + "\n" for line in lines))
    recipe = recipe_for(tmp_path)
    run(recipe)
    old, whole = content_of(lines_of(2, 4), Wording()), content_of(lines, Wording())
    half = content_of(lines[:2], Wording())
    snapshot = table_of(recipe).open()
    assert torn_files(snapshot, {str(path): [old, whole]}) == []
    assert "is none of 2 versions" in torn_files(snapshot, {str(path): [old, half]})[0]
    assert "was never written" in torn_files(snapshot, {})[0]
