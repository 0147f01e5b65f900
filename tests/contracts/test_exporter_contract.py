"""What every exporter promises: all rows in order, and a target that is complete or not there."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedding_core.errors import SetupError, Transient, UsageError
from embedding_core.exports.exporter import KNOWN_EXPORTERS, Exporter, ExportInfo
from embedding_core.exports.parquet import ABOUT_KEY
from embedding_core.records import Space

SPACE = Space(
    model="m", revision=None, identity=("a",), tokenizer="t", pooling="mean", query_prompt="",
    document_prompt="", max_tokens=16, dim=4, dtype_class="full",
)  # fmt: skip
ABOUT = ExportInfo(recipe="docs", table="docs", version=3, space_id="0" * 64, space=SPACE)
READERS: dict[str, Callable[[Path], pa.Table]] = {"parquet": pq.read_table}
"""How what each exporter wrote is read back."""


@pytest.fixture(params=list(KNOWN_EXPORTERS.working()))
def name(request: pytest.FixtureRequest) -> str:
    exporter: str = request.param
    return exporter


@pytest.fixture
def exporter(name: str) -> Exporter:
    return KNOWN_EXPORTERS.get(name)


def batches() -> list[pa.RecordBatch]:
    """Two batches, with vectors and a null."""
    rows = [
        {"chunk_id": str(n), "text": f"naïve 中文 {n}", "year": None if n == 4 else n}
        for n in range(9)
    ]
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(36, dtype=np.float32) / 36), 4)
    table = pa.Table.from_pylist(rows).append_column("vector", vectors)
    return [table.slice(at, n).combine_chunks().to_batches()[0] for at, n in ((0, 4), (4, 5))]


def test_write_every_row_in_order_with_its_values(
    name: str, exporter: Exporter, tmp_path: Path
) -> None:
    target = tmp_path / "new" / "folder" / "rows"
    report = exporter.write(iter(batches()), str(target), ABOUT)
    written = READERS[name](target)
    assert written.replace_schema_metadata(None).equals(pa.Table.from_batches(batches()))
    assert report.rows == 9
    sizes = [Path(file).stat().st_size for file in report.files]
    assert report.size_bytes == sum(sizes) > 0


def test_write_an_existing_target_is_refused_and_stays(exporter: Exporter, tmp_path: Path) -> None:
    target = tmp_path / "rows"
    target.write_text("mine")
    with pytest.raises(UsageError, match="exists"):
        exporter.write(iter(batches()), str(target), ABOUT)
    assert target.read_text() == "mine"


def test_write_rows_that_break_off_leave_nothing(exporter: Exporter, tmp_path: Path) -> None:
    def broken() -> Iterator[pa.RecordBatch]:
        yield batches()[0]
        raise Transient("the store broke off")

    with pytest.raises(Transient, match="broke off"):
        exporter.write(broken(), str(tmp_path / "rows"), ABOUT)
    assert list(tmp_path.iterdir()) == []


def test_write_no_rows_says_so(exporter: Exporter, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no rows"):
        exporter.write(iter(()), str(tmp_path / "rows"), ABOUT)
    assert list(tmp_path.iterdir()) == []


def test_write_where_nothing_can_be_written_names_the_target(
    exporter: Exporter, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(SetupError, match="file/rows"):
        exporter.write(iter(batches()), str(tmp_path / "file" / "rows"), ABOUT)


def test_parquet_says_what_it_holds(tmp_path: Path) -> None:
    KNOWN_EXPORTERS.get("parquet").write(iter(batches()), str(tmp_path / "rows"), ABOUT)
    metadata = pq.read_schema(tmp_path / "rows").metadata
    assert json.loads(metadata[ABOUT_KEY]) == json.loads(json.dumps(asdict(ABOUT)))
