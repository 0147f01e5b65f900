"""The notebooks of ``examples`` are tidy, and their cells run from top to bottom."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
MOST_BYTES = 20_000

RUN = """
import ast, asyncio, inspect, json, sys

cells, names = json.load(open(sys.argv[1]))["cells"], {"__name__": "__main__"}
with asyncio.Runner() as runner:
    for number, cell in enumerate(cells):
        if cell["cell_type"] == "code":
            source = "".join(cell["source"])
            flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
            result = eval(compile(source, f"cell {number}", "exec", flags=flags), names)
            if inspect.iscoroutine(result):
                runner.run(result)
"""
"""Runs the cells as Jupyter does, without its kernel: in one process, with ``await`` at the top."""


def cells_of(notebook: Path) -> list[dict[str, Any]]:
    cells: list[dict[str, Any]] = json.loads(notebook.read_text())["cells"]
    return cells


def test_notebooks_are_there() -> None:
    assert {path.stem for path in NOTEBOOKS} == {
        "clients_langchain", "clients_lancedb", "clients_llama_index",
    }  # fmt: skip


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_small_and_holds_no_output(notebook: Path) -> None:
    content = json.loads(notebook.read_text())
    assert (content["nbformat"], content["nbformat_minor"]) == (4, 5)
    assert notebook.stat().st_size < MOST_BYTES
    assert cells_of(notebook)[0]["cell_type"] == "markdown"
    assert len({cell["id"] for cell in content["cells"]}) == len(content["cells"])
    for cell in cells_of(notebook):
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_from_top_to_bottom(notebook: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(notebook)],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "notes" / "lake" / "notes.lance").is_dir()
