"""What a run's rows are held against, by the index or in one pass over the table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from embedding_core.identity import text_hash
from embedding_core.lake.rows import verification
from embedding_core.lake.rows.verification import verify
from embedding_core.lake.table import Table
from embedding_core.records import FileCounts
from tests.driver import recipe_for
from tests.synthetic import Clusters, add_files

ROWS = 10


@pytest.fixture(params=[0.0, 2.0], ids=["one pass", "by the index"])
def table(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Table:
    """Three files of ten rows each."""
    monkeypatch.setattr(verification, "ONE_PASS_SHARE", request.param)
    return add_files(recipe_for(tmp_path), ["a", "b", "c"], ROWS, Clusters.make(5, 32))


def counts(uri: str, rows: int = ROWS, embedded: int | None = None) -> FileCounts:
    made = rows if embedded is None else embedded
    return FileCounts(key(uri), uri, 1, 0, rows, 0, 5, embedded=made)


def key(uri: str) -> str:
    return text_hash(f"{uri} 0")


def test_verify_files_that_are_as_counted(table: Table) -> None:
    result = verify(table, [counts("a"), counts("c")], [])
    assert (result.files, result.rows, result.problems) == (2, 2 * ROWS, ())


def test_verify_names_what_is_wrong(table: Table) -> None:
    result = verify(table, [counts("a", rows=11), counts("b", embedded=9)], [key("c")])
    assert [problem.split(":")[0] for problem in result.problems] == [
        "a",
        "b",
        "b",
        key("c")[:12],
    ]
    assert "10 rows in the table, 11 counted" in result.problems[0]


def test_verify_chunk_that_stands_twice(table: Table) -> None:
    dataset = table.dataset()
    dataset.insert(dataset.to_table(filter=f"file_key = '{key('a')}'", limit=1))
    problems = verify(table, [counts("a")], []).problems
    assert any("stands 2 times" in problem for problem in problems) and len(problems) == 2


def test_verify_equal_hashes_of_other_chunks_are_no_problem(
    table: Table,
) -> None:
    def all_equal(chunk_ids: pa.Array) -> npt.NDArray[np.int64]:
        return np.zeros(len(chunk_ids), np.int64)

    assert verify(table, [counts("a"), counts("c")], [], all_equal).passed
    dataset = table.dataset()
    dataset.insert(dataset.to_table(filter=f"file_key = '{key('a')}'", limit=1))
    problems = verify(table, [counts("a"), counts("c")], [], all_equal).problems
    assert sum("stands 2 times" in problem for problem in problems) == 1
