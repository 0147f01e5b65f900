"""Who may write to a lake may change its small files: nothing in them leads out of it, and none
ends a run with an error that nobody can read."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedding_core.errors import LakeError, UsageError
from embedding_core.lake import lock, staging
from embedding_core.lake.lock import Timing
from embedding_core.lake.spaces.bridges import bridge_path, read_bridge
from embedding_core.lake.spaces.references import read_reference
from embedding_core.lake.spaces.switching import promote, retire
from embedding_core.lake.table import Table, table_of
from embedding_core.lake.upkeep.belongings import remove_orphans
from embedding_core.recipe import Recipe
from embedding_core.records import WorkUnit
from embedding_core.runs.embed.chunk_stage import chunk_unit
from embedding_core.runs.embed.embed_stage import embed_unit
from embedding_core.runs.embed.saved import finished_packs, finished_units
from embedding_core.runs.embed.units import work_units
from embedding_core.runs.job import Job
from embedding_core.runs.watched.run_record import read_record
from embedding_core.store.layout import lock_folder, reference_path, run_path
from tests.driver import begin, recipe_for, rows, run, write_jsonl

DEEP = b"[" * 100_000
SPACE = "0" * 64
AT_ONCE = Timing(beat=60.0, expiry=0.0, poll=0.001)


@pytest.fixture
def table(tmp_path: Path) -> Table:
    write_jsonl(tmp_path, "a.jsonl", {"x": "words"})
    recipe = recipe_for(tmp_path)
    run(recipe)
    return table_of(recipe)


WRONG_TIME = b'{"run_id": "a", "state": "running", "started_at": "soon", "updated_at": 1}'


# Records of locks


def locks(table: Table) -> Path:
    """The folder of the records."""
    folder = Path(lock_folder(table.lake.uri, table.name, "lock"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.mark.parametrize(
    "name", ["\u00b2.json", "-1.json", "1e3.json", "\u0661.json", "x.json", ".json"]
)
def test_lock_record_whose_name_is_no_number_counts_for_nothing(table: Table, name: str) -> None:
    locks(table).joinpath(name).write_text("{}")
    with lock.locked(table, "a run", 0) as taken:
        assert taken.number == 1


@pytest.mark.parametrize(
    "record",
    [
        DEEP,
        b"\xff",
        b"[]",
        b'{"given_back": false}',
        b'{"given_back": false, "holder": [], "since": "x", "renewed": {}}',
        b'{"given_back": false, "holder": "x", "since": "0001-01-01", "renewed": "9999-12-31"}',
        b'{"given_back": false, "holder": "\\u001b[2J\\ud800", "host": "\\n", "since": null}',
    ],
)
def test_lock_record_that_is_damaged_is_shown_and_expires(table: Table, record: bytes) -> None:
    locks(table).joinpath("7.json").write_bytes(record)
    held = lock.held_lock(table, "lock")
    assert held is None or held.since < held.renewed
    assert str(lock.holder_of(table)).isprintable()
    assert lock.acquire(table, "lock", "a run", 0.0, AT_ONCE).number == 8


@pytest.mark.parametrize("record", [DEEP, b"{", b"[]", b'{"run_id": 1}', b"\xff", WRONG_TIME])
def test_run_record_that_is_damaged_is_none(table: Table, record: bytes) -> None:
    Path(run_path(table.lake.uri, table.name)).write_bytes(record)
    assert read_record(table) is None


# What became of units


class Staged:
    """A unit that is embedded and not committed, and its report."""

    def __init__(self, folder: Path) -> None:
        write_jsonl(folder, "a.jsonl", {"x": "words", "y": " "})
        self.recipe: Recipe = recipe_for(folder)
        self.job, self.planned = begin(self.recipe)
        (unit,) = work_units(self.planned, 1)
        self.unit: WorkUnit = unit
        embed_unit(self.job, chunk_unit(self.job, unit))
        name = staging.staged_path(self.job.table, unit.unit_id, staging.REPORT)
        self.report = Path(name)

    def change(self, **values: Any) -> None:
        """Put other values into the report."""
        content = json.loads(self.report.read_text()) | values
        self.report.write_text(json.dumps(content))

    def change_fragment(self, change: Callable[[dict[str, Any]], object]) -> None:
        """Change the metadata of its fragment."""
        content = json.loads(self.report.read_text())
        fragment = json.loads(content["fragments"][0])
        change(fragment)
        self.change(fragments=[json.dumps(fragment)])

    def is_usable(self) -> bool:
        """Whether a run would go on with it."""
        job: Job = self.job
        packs = finished_packs(job, self.planned)
        assert [*packs] == finished_units(job, [self.unit])
        return bool(packs)


@pytest.fixture
def staged(tmp_path: Path) -> Staged:
    staged = Staged(tmp_path)
    assert staged.is_usable()
    return staged


def test_unit_report_that_names_rejects_outside_of_the_unit_is_done_again(
    staged: Staged, tmp_path: Path
) -> None:
    (own,) = json.loads(staged.report.read_text())["reject_paths"]
    secret = tmp_path / "secret.arrow"
    shutil.copy(own, secret)
    above = str(Path(own).parent)
    for path in (
        str(secret),
        f"{above}/../../../../secret.arrow",
        f"file://{own}",
        f"{above}/..",
        "",
    ):
        staged.change(reject_paths=[path])
        assert not staged.is_usable(), path
    staged.change(reject_paths=[own], ids_path=str(secret))
    assert not staged.is_usable()
    run(staged.recipe)
    assert [row["text"] for row in rows(staged.recipe)] == ["words"]


def test_fragment_that_names_a_file_of_another_table_is_done_again(
    staged: Staged, tmp_path: Path
) -> None:
    data = Path(staged.job.table.uri) / "data"
    (own,) = data.iterdir()
    elsewhere = tmp_path / "other.lance" / "data"
    elsewhere.mkdir(parents=True)
    shutil.copy(own, elsewhere / own.name)
    for path in (
        f"../../../other.lance/data/{own.name}",
        str(elsewhere / own.name),
        "..",
        "a\\b.lance",
    ):
        staged.change_fragment(lambda fragment, path=path: fragment["files"][0].update(path=path))
        assert not staged.is_usable(), path
    staged.change_fragment(lambda fragment: fragment["files"][0].update(path=own.name, base_id=0))
    assert not staged.is_usable()
    staged.change_fragment(lambda fragment: fragment["files"][0].update(base_id=None))
    assert staged.is_usable()


@pytest.mark.parametrize(
    "values",
    [
        {"counts": []},
        {"counts": [{"file_key": "x"}]},
        {"counts": "x"},
        {"fragments": ["{"]},
        {"fragments": ["[]"]},
        {"fragments": [5]},
        {"reasons": []},
        {"stages": {"read": "soon"}},
        {"model": None},
        {"file_rejects": [{}]},
        {"more": 1},
    ],
)
def test_unit_report_that_is_not_as_it_was_written_is_done_again(
    staged: Staged, values: dict[str, Any]
) -> None:
    staged.change(**values)
    assert not staged.is_usable()
    run(staged.recipe)
    assert [row["text"] for row in rows(staged.recipe)] == ["words"]


def test_unit_report_nested_too_deep_is_done_again(staged: Staged) -> None:
    staged.report.write_bytes(DEEP)
    assert not staged.is_usable()


# Arrays


def npy(shape: str, descr: str = "<f4", values: bytes = bytes(16)) -> bytes:
    head = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head.encode() + values


ARRAYS = [
    npy("(9999999999999, 4)"),
    npy("(2, 4)"),
    npy("(-2, -2)"),
    npy("(4,)"),
    npy("(2, 2)", "|O"),
    npy("(1, 2)", "<f8"),
    npy("(2, 2)", "<f4", b""),
    npy("(2, 2"),
    b"\x93NUMPY",
    b"\x80\x04.",
    b"",
]


def test_array_as_it_is_written_is_read(table: Table) -> None:
    path = Path(bridge_path(table, SPACE, SPACE))
    path.parent.mkdir(parents=True)
    path.write_bytes(npy("(2, 2)"))
    matrix = read_bridge(table, SPACE, SPACE)
    assert matrix is not None and np.array_equal(matrix, np.zeros((2, 2), np.float32))


@pytest.mark.parametrize("content", ARRAYS)
def test_array_that_declares_what_it_does_not_hold_is_damaged(table: Table, content: bytes) -> None:
    path = Path(bridge_path(table, SPACE, SPACE))
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(LakeError, match="is damaged"):
        read_bridge(table, SPACE, SPACE)
    reference = Path(reference_path(table.lake.uri, SPACE))
    reference.write_bytes(content)
    assert read_reference(table_spec(table), SPACE) is None


def table_spec(table: Table) -> Any:
    from embedding_core.recipe.spec import LakeSpec

    return LakeSpec(uri=table.lake.uri, table=table.name, storage=table.lake.storage)


# Links


def old_file(folder: Path) -> Path:
    """A file of somebody else that is old enough to be cleaned up."""
    folder.mkdir(parents=True)
    path = folder / "thesis.txt"
    path.write_text("mine")
    os.utime(path, (1, 1))
    return path


@pytest.mark.parametrize("linked", ["staged", ""])
def test_maintenance_removes_nothing_behind_a_link(
    table: Table, tmp_path: Path, linked: str
) -> None:
    thesis = old_file(tmp_path / "home" / "staged")
    folder = Path(staging.staging_folder(table)).parent
    if linked:
        shutil.rmtree(folder / linked, ignore_errors=True)
        (folder / linked).symlink_to(tmp_path / "home" / "staged")
    else:
        shutil.rmtree(folder)
        folder.symlink_to(tmp_path / "home")
    with pytest.raises(LakeError, match="is a link, and a lake has none; remove it"):
        remove_orphans(table, timedelta(0))
    with pytest.raises(LakeError, match="is a link"), lock.locked(table, "a run", 0):
        pass
    assert thesis.read_text() == "mine"


# Names of columns


@pytest.mark.parametrize(
    "name", ["vector__x' OR 1=1 --", "text", "../x", "vector`", "", "\0", "vector__" + "0" * 5_000]
)
def test_name_of_no_space_is_refused_by_promote_and_retire(table: Table, name: str) -> None:
    version = table.open().version
    for change in (promote, retire):
        with pytest.raises((LakeError, UsageError)):
            change(table, name, "test", wait_seconds=1)
    assert table.open().version == version
