"""Two runs on one table at once: a run that slept through its successor changes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lance
import pytest

from embedding_core.errors import LakeError
from embedding_core.lake import ledger
from embedding_core.lake.table import table_of
from embedding_core.recipe import Recipe
from embedding_core.records import EmbeddedUnit, Plan
from embedding_core.runs.embed.chunk_stage import chunk_unit
from embedding_core.runs.embed.commit_stage import commit_units
from embedding_core.runs.embed.embed_stage import embed_unit
from embedding_core.runs.embed.planning import plan
from embedding_core.runs.embed.units import work_units
from embedding_core.runs.job import Job
from tests.driver import begin, recipe_for, rejects, run, texts, write_jsonl

TABLES = ["docs", "docs__rejects", "docs__files"]


def sources(folder: Path, words: str) -> None:
    write_jsonl(folder, "a.jsonl", {"x": f"{words} a", "y": " "})
    write_jsonl(folder, "b.jsonl", {"x": f"{words} b", "y": " "})


def prepared(folder: Path) -> tuple[Recipe, Job, Plan, list[EmbeddedUnit]]:
    """A table with one file; a second and a change of the first, embedded and not committed."""
    write_jsonl(folder, "a.jsonl", {"x": "first a", "y": " "})
    recipe = recipe_for(folder, max_rejected_share=1)
    run(recipe)
    sources(folder, "second")
    job, planned = begin(recipe)
    units = work_units(planned, 1)
    done = [embed_unit(job, chunk_unit(job, unit)) for unit in units]
    return recipe, job, planned, done


def between(patch: pytest.MonkeyPatch, name: str, action: Callable[[], object]) -> None:
    """Do something once, between the last look at a table and a commit to it."""
    real, left = lance.LanceDataset.commit, [action]

    def commit(target: Any, *changes: Any, **settings: Any) -> lance.LanceDataset:
        if left and isinstance(target, lance.LanceDataset) and Path(target.uri).stem == name:
            left.pop()()
        return real(target, *changes, **settings)

    patch.setattr(lance.LanceDataset, "commit", commit)


def check_is_as_the_source_says(recipe: Recipe, words: str) -> None:
    """Table, rejects and ledger, each once; a further run has nothing to do."""
    assert texts(recipe) == [f"{words} a", f"{words} b"]
    uris = Counter(row["source_uri"].rpartition("/")[2] for row in rejects(recipe))
    assert uris == {"a.jsonl": 1, "b.jsonl": 1}
    history = ledger.open_ledger(table_of(recipe))
    keys = ledger.ledger_rows(history, ["file_key"]).column("file_key").to_pylist()
    assert len(keys) == len(set(keys))
    assert plan(recipe).is_empty


def test_commit_units_after_a_successor_with_newer_sources_is_refused(tmp_path: Path) -> None:
    recipe, job, planned, done = prepared(tmp_path)
    sources(tmp_path, "third")
    run(recipe)
    version = table_of(recipe).dataset().version
    with pytest.raises(LakeError, match=r"another run changed .*a.jsonl.*run the same command"):
        commit_units(job, done, planned.removed_keys)
    assert table_of(recipe).dataset().version == version
    check_is_as_the_source_says(recipe, "third")


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLES)
def test_commit_units_successor_with_newer_sources_comes_between_look_and_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    recipe, job, planned, done = prepared(tmp_path)

    def successor() -> None:
        sources(tmp_path, "third")
        run(recipe)

    between(monkeypatch, name, successor)
    try:
        commit_units(job, done, planned.removed_keys)
    except LakeError as error:
        assert "another run changed" in str(error)  # else it had ended before the successor began
    check_is_as_the_source_says(recipe, "third")


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLES)
def test_commit_units_successor_with_the_same_sources_leaves_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    recipe, job, planned, done = prepared(tmp_path)
    between(monkeypatch, name, lambda: run(recipe))
    commit_units(job, done, planned.removed_keys)
    check_is_as_the_source_says(recipe, "second")


def test_commit_units_file_that_a_successor_removed_does_not_come_back(tmp_path: Path) -> None:
    recipe, job, planned, done = prepared(tmp_path)
    (tmp_path / "src" / "a.jsonl").unlink()
    run(recipe, allow_removals=True)
    with pytest.raises(LakeError, match="another run changed"):
        commit_units(job, done, planned.removed_keys)
    assert texts(recipe) == ["second b"]
