"""A few seeds of every fault experiment, and the oracle that judges them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import lance
import pytest

from benchmarks.machine import ROOT
from embedding_core.lake.ledger import ledger_table, rejects_table
from embedding_core.lake.table import Table, table_of
from embedding_core.recipe import Recipe
from experiments.faults import shim
from experiments.faults.command import EXPERIMENTS
from experiments.faults.world import World, readable
from tests.driver import recipe_for, run

INJECTIONS = "1"
"""Of each kind: a second or two each."""
THREE_GROUPS = [list(EXPERIMENTS)[start::3] for start in range(3)]
"""A process for each group, because importing everything takes seconds."""


@pytest.mark.slow
@pytest.mark.skipif(shim.missing() is not None, reason=str(shim.missing()))
@pytest.mark.parametrize("names", THREE_GROUPS, ids=" ".join)
def test_experiments_few_injections_violate_nothing(tmp_path: Path, names: list[str]) -> None:
    command = [sys.executable, "-m", "experiments.faults", "--most", INJECTIONS]
    chosen = [option for name in names for option in ("--only", name)]
    done = subprocess.run(
        [*command, *chosen, "--results", str(tmp_path)], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for name in names:
        result = json.loads((tmp_path / f"faults-{name}.json").read_text())
        assert 0 < result["injections"] < result["possible"], name
        assert result["violations"] == [], name


@pytest.fixture
def true_table(tmp_path: Path) -> tuple[World, Recipe]:
    world = World(tmp_path / "src", seed=1)
    for number in range(4):
        world.write(f"f{number}.jsonl")
    recipe = recipe_for(tmp_path, max_rejected_share=1.0)
    run(recipe)
    return world, recipe


def test_oracle_finds_nothing_wrong_with_a_true_table(true_table: tuple[World, Recipe]) -> None:
    world, recipe = true_table
    assert any(content.rejects for content in world.files.values())
    assert (world.problems(recipe), readable(recipe)) == ([], [])


def again(table: Table) -> None:
    """Append the rows that are there already."""
    lance.write_dataset(table.to_arrow(), table.uri, mode="append")


def without_a_row(table: Table) -> None:
    table.dataset().delete("_rowid = 0")


def with_other_texts(table: Table) -> None:
    table.dataset().update({"text": "'other'"})


def with_other_vectors(table: Table) -> None:
    rows = table.to_arrow()
    column = rows.schema.get_field_index("vector")
    turned = rows.column("vector").take(list(reversed(range(len(rows)))))
    changed = rows.set_column(column, rows.schema.field(column), turned)
    lance.write_dataset(changed, table.uri, mode="overwrite")


@pytest.mark.parametrize(
    ("beside", "damage", "says"),
    [
        (None, again, "chunks are numbered"),
        (None, without_a_row, "in the ledger"),
        (None, with_other_texts, "not a slice of the newest text"),
        (None, with_other_vectors, "is not its text's"),
        (ledger_table, without_a_row, "no line of"),
        (ledger_table, again, "2 lines of"),
        (rejects_table, without_a_row, "is missing"),
        (rejects_table, again, "is one too many"),
    ],
)
def test_oracle_names_what_is_wrong(
    true_table: tuple[World, Recipe],
    beside: Callable[[Table], Table] | None,
    damage: Callable[[Table], None],
    says: str,
) -> None:
    world, recipe = true_table
    table = table_of(recipe)
    damage(beside(table) if beside else table)
    problems = world.problems(recipe)
    assert any(says in problem for problem in problems), problems


def test_oracle_compares_with_the_files_as_they_are_now(true_table: tuple[World, Recipe]) -> None:
    world, recipe = true_table
    world.write("f0.jsonl")
    world.write("f9.jsonl")
    world.remove("f1.jsonl")
    problems = "\n".join(world.problems(recipe))
    assert "is missing" in problems and "is not in the files" in problems
    run(recipe)
    assert world.problems(recipe) == []
