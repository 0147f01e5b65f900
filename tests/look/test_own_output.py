"""What is written of a table does not come back as a document of its source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from embedding_core.errors import UsageError
from embedding_core.exports.spec import ExportSpec
from embedding_core.recipe import Recipe
from embedding_core.runs.exchange.exporting import export
from embedding_core.runs.inputs.own_output import check_outside_source
from tests.driver import recipe_for, run, write_jsonl

INSIDE = [("report.html", {}), ("deep/map.parquet", {}), ("notes.md", {"include": ["*.md"]})]
OUTSIDE = [
    ("../report.html", {}),
    ("report.html", {"include": ["*.jsonl"]}),
    ("out/report.html", {"exclude": ["out/**"]}),
    ("_out/report.html", {}),
    ("picture.bin", {}),
]


def target(folder: Path, name: str, source: dict[str, Any]) -> tuple[Recipe, str]:
    recipe = recipe_for(folder, source=source)
    return recipe, f"{recipe.source.uri}/{name}"


@pytest.mark.parametrize(("name", "source"), INSIDE)
def test_file_that_the_next_run_would_read_is_refused(
    tmp_path: Path, name: str, source: dict[str, Any]
) -> None:
    with pytest.raises(UsageError, match="so the next run would embed it; name a file outside"):
        check_outside_source(*target(tmp_path, name, source))


@pytest.mark.parametrize(("name", "source"), OUTSIDE)
def test_file_that_no_run_reads_may_be_written(
    tmp_path: Path, name: str, source: dict[str, Any]
) -> None:
    check_outside_source(*target(tmp_path, name, source))


def test_export_into_the_source_is_refused_and_writes_nothing(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"1": "text"})
    recipe, folder = target(tmp_path, "out", {})
    run(recipe)
    with pytest.raises(UsageError, match="the next run would embed it"):
        export(recipe, ExportSpec(to="jsonl"), folder)
    assert not Path(folder).exists()
