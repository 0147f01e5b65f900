"""A few seeds of every fault experiment, and the oracle that judges them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import lance
import pytest

from benchmarks.machine import ROOT
from embedding_core.lake.ledger import ledger_table, rejects_table
from embedding_core.lake.table import Table, table_of
from embedding_core.recipe import Recipe
from experiments.faults import damages, shim
from experiments.faults.command import EXPERIMENTS
from experiments.faults.injections import Choice, Point, Tally
from experiments.faults.journal import Journal
from experiments.faults.resources import mounts
from experiments.faults.resources.limits import DESCRIPTORS
from experiments.faults.world import World, readable
from tests.driver import recipe_for, run

MISSED = ("ended before", "stopped before")
"""How a count begins of processes that came not as far as the point."""
NEED_MOUNTS = {"full-disks", "read-only-disks"}
VARIANTS = {
    "four-runs-unlocked", "loops-indexed", "stops-changed",
    *(f"damaged-{room}" for room in damages.WORDS if room not in ("data", "staged")),
}  # fmt: skip
"""Experiments by the function of another, with other values."""
ELSEWHERE = {
    "prefect-servers": "tests/e2e/test_topology.py",
    "ray-workers": "tests/runs/test_scheduler.py",
    "ray-nodes": "tests/e2e/test_topology.py",
    "stopped-runs": "tests/e2e/test_signals.py",
    "deployed-runs": "tests/e2e/test_topology.py",
    "throttled-runs": "tests/lake/test_lock.py",
    "quotas": "tests/lake/test_lock.py",
    "exhausted-memory": "tests/embedlake/test_environment.py",
}
"""Experiments with servers or with much waiting, and the tests that do the same once, or hold what
they rest on."""
FAULTY_MACHINES = {
    "clocks", "damaged-data", "damaged-staged", "memory", "power", "trainings", "writes",
}  # fmt: skip
"""About half of the time that experiments on one machine take."""
GROUPS = {
    "local": {name for name in EXPERIMENTS if not name.startswith("s3-")}
    - NEED_MOUNTS
    - VARIANTS
    - ELSEWHERE.keys()
    - FAULTY_MACHINES,
    "faulty machines": FAULTY_MACHINES,
    "S3": {"s3-kills", "s3-replies", "s3-unconditional"},
    "disks": NEED_MOUNTS,
}
"""A process for each, because importing everything takes seconds. Other experiments on S3 wait for
half a minute; ``test_proxy`` has what they do."""


def experiment(results: Path, names: Iterable[str], *options: str) -> str:
    """Run experiments in a process of their own; what it printed. They must violate nothing."""
    command = [sys.executable, "-m", "experiments.faults", "--results", str(results), *options]
    chosen = [option for name in sorted(names) for option in ("--only", name)]
    done = subprocess.run([*command, *chosen], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.skipif(shim.missing() is not None, reason=str(shim.missing()))
@pytest.mark.parametrize("group", GROUPS)
def test_experiments_an_injection_of_each_kind_violates_nothing(tmp_path: Path, group: str) -> None:
    if group == "disks" and (why := mounts.missing()):
        pytest.skip(why)
    experiment(tmp_path, GROUPS[group], "--most", "1")
    for name in GROUPS[group]:
        result = json.loads((tmp_path / f"faults-{name}.json").read_text())
        assert result["violations"] == [], name
        assert sum(result["by_kind"].values()) == result["chosen"] > 0, name
        assert result["possible"] is None or result["chosen"] <= result["possible"], name
        missed = sum(n for what, n in result["counts"].items() if what.startswith(MISSED))
        assert result["injections"] == result["chosen"] - missed, name


@pytest.mark.slow
@pytest.mark.skipif(shim.missing() is not None, reason=str(shim.missing()))
def test_experiment_that_was_ended_goes_on_where_it_was(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "faults-descriptors.jsonl")
    points = [Point("descriptors", number) for number in DESCRIPTORS]
    first, *others = Choice(3, seed=0).of(points)
    journal.add(first, Tally(), 0.0, "an earlier commit")
    said = experiment(tmp_path, ["descriptors"], "--most", "3", "--seconds", "0")
    assert "0 injections of 3 that were chosen" in said, "no time to begin another"
    experiment(tmp_path, ["descriptors"], "--most", "3", "--jobs", "2")
    lines = list(journal.lines())
    assert lines[0]["commit"] == "an earlier commit"
    assert len(lines) == 3 and journal.points() == {first, *others}


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


@pytest.mark.parametrize("kind", damages.SEEDS)
def test_damage_is_the_same_for_a_point_and_keeps_the_time_of_change(
    tmp_path: Path, kind: str
) -> None:
    content = bytes(range(200))
    path, other = tmp_path / "a", tmp_path / "empty"
    other.touch()
    damaged = []
    for _ in range(2):
        path.write_bytes(content)
        os.utime(path, (1_000, 1_000))
        where = damages.damage_file([str(path), str(other)], Point(kind, 3))
        assert where == f"{tmp_path.name}/a" and path.stat().st_mtime == 1_000
        damaged.append(path.read_bytes())
    first, again = damaged
    assert first == again
    if kind == damages.TRUNCATION:
        assert len(first) < len(content) and content.startswith(first)
    else:
        (at,) = (at for at in range(200) if first[at] != content[at])
        assert (first[at] ^ content[at]).bit_count() == 1
