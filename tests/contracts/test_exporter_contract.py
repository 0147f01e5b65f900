"""What every exporter promises: all rows in order, the same bytes each time, and read again."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors import safe_open

from embedding_core.errors import Transient
from embedding_core.exports.exporter import KNOWN_EXPORTERS, Exporter, ShardInfo

DIM = 4
SCHEMA = pa.schema(
    [
        ("chunk_id", pa.string()),
        ("text", pa.string()),
        ("year", pa.int64()),
        pa.field("vector", pa.list_(pa.field("element", pa.float32()), DIM)),
    ],
    metadata={"embedlake": json.dumps({"space": "s"})},
)


@pytest.fixture(params=list(KNOWN_EXPORTERS.working()))
def name(request: pytest.FixtureRequest) -> str:
    exporter: str = request.param
    return exporter


@pytest.fixture
def exporter(name: str) -> Exporter:
    return KNOWN_EXPORTERS.get(name)


def batches(schema: pa.Schema = SCHEMA) -> list[pa.RecordBatch]:
    """Two batches, with texts of several scripts, a null, a minus zero, small and large floats."""
    numbers = np.arange(36, dtype=np.float32) / 7
    numbers[:3] = -0.0, 6e-8, 65_000.0
    kind = schema.field("vector").type
    rows = {
        "chunk_id": [str(n) for n in range(9)],
        "text": [f'naïve "中文" \u2028 {n}\n' for n in range(9)],
        "year": [None if n == 4 else n for n in range(9)],
        "vector": pa.array(
            numbers.astype(kind.value_type.to_pandas_dtype()).reshape(-1, DIM).tolist(), kind
        ),
    }
    table = pa.table(rows, schema=schema)
    return [table.slice(at, n).combine_chunks().to_batches()[0] for at, n in ((0, 4), (4, 5))]


def written(exporter: Exporter, schema: pa.Schema = SCHEMA) -> list[bytes]:
    files = [io.BytesIO() for _ in exporter.suffixes]
    exporter.write(iter(batches(schema)), files, ShardInfo(schema, 9, "vector", DIM))
    return [file.getvalue() for file in files]


def read(exporter: Exporter, contents: Sequence[bytes], vector: str = "vector") -> pa.Table:
    files = [io.BytesIO(content) for content in contents]
    return pa.Table.from_batches(exporter.read(files, vector))


def test_write_rows_are_read_again_in_their_order_and_bit_by_bit(exporter: Exporter) -> None:
    again = read(exporter, written(exporter))
    expected = pa.Table.from_batches(batches())
    for column in ("chunk_id", "text", "year"):
        assert again.column(column).to_pylist() == expected.column(column).to_pylist()
    numbers = [t.column("vector").combine_chunks().flatten() for t in (again, expected)]
    assert numbers[0].to_numpy().tobytes() == numbers[1].to_numpy().tobytes()


@pytest.mark.parametrize("dtype", [pa.float16(), pa.float32()])
@pytest.mark.parametrize("size", [DIM, -1])
def test_write_every_type_of_vector(exporter: Exporter, dtype: pa.DataType, size: int) -> None:
    kind = pa.list_(pa.field("element", dtype), size)
    schema = SCHEMA.set(3, pa.field("vector", kind))
    again = read(exporter, written(exporter, schema)).column("vector").to_pylist()
    assert again == pa.Table.from_batches(batches(schema)).column("vector").to_pylist()


def test_write_the_same_rows_give_the_same_bytes(exporter: Exporter) -> None:
    assert written(exporter) == written(exporter)


def test_write_rows_that_break_off_raise_their_error(exporter: Exporter) -> None:
    def broken() -> Iterator[pa.RecordBatch]:
        yield batches()[0]
        raise Transient("the store broke off")

    files = [io.BytesIO() for _ in exporter.suffixes]
    with pytest.raises(Transient, match="broke off"):
        exporter.write(broken(), files, ShardInfo(SCHEMA, 9, "vector", DIM))


def test_write_a_full_disk_raises_its_error(exporter: Exporter) -> None:
    class Full(io.BytesIO):
        def write(self, data: Any, /) -> int:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        exporter.write(
            iter(batches()),
            [Full() for _ in exporter.suffixes],
            ShardInfo(SCHEMA, 9, "vector", DIM),
        )


def test_read_damaged_files_raise_value_error(exporter: Exporter) -> None:
    contents = [content[: len(content) // 2] for content in written(exporter)]
    with pytest.raises(ValueError):
        read(exporter, contents)


LIBRARIES: dict[str, Callable[[Path], Any]] = {
    "parquet": lambda path: pq.read_table(path).column("vector").to_pylist(),
    "arrow": lambda path: pa.ipc.open_file(path).read_all().column("vector").to_pylist(),
    "jsonl": lambda path: [json.loads(line)["vector"] for line in path.read_bytes().splitlines()],
    "npy": lambda path: np.load(path, mmap_mode="r").tolist(),
    "safetensors": lambda path: safe_open(path, "np").get_tensor("vector").tolist(),
}
"""The vectors of a file, as each format's own library reads them."""


def test_write_files_are_what_the_library_of_the_format_reads(
    name: str, exporter: Exporter, tmp_path: Path
) -> None:
    path = tmp_path / f"part{exporter.suffixes[0]}"
    path.write_bytes(written(exporter)[0])
    vectors = np.array(LIBRARIES[name](path), np.float32)
    expected = pa.Table.from_batches(batches()).column("vector").combine_chunks().flatten()
    assert vectors.tobytes() == expected.to_numpy().tobytes()


def test_parquet_and_arrow_say_what_they_hold(tmp_path: Path) -> None:
    (parquet,) = written(KNOWN_EXPORTERS.get("parquet"))
    (arrow,) = written(KNOWN_EXPORTERS.get("arrow"))
    for schema in (pq.read_schema(io.BytesIO(parquet)), pa.ipc.open_file(arrow).schema):
        assert json.loads(schema.metadata[b"embedlake"]) == {"space": "s"}
