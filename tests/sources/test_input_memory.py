"""A file of any size is read in the memory of its largest part."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.ipc as ipc
import pyarrow.parquet as pq
import pytest

from tests.compressed import COMPRESSORS

READ = """
import resource, sys
from embedding_core.recipe import SourceSpec
from embedding_core.sources import discover, read_documents

def n_read(path):
    spec = SourceSpec(uri=path)
    (file,) = discover(spec).files
    return sum(1 for _ in read_documents(file, spec))

n_read(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert n_read(sys.argv[2]) == int(sys.argv[3])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
ROWS = 50_000
TEXT = "".join(chr(97 + n * n % 26) for n in range(1_000))


def rows(n_rows: int) -> pa.Table:
    return pa.table({"text": [f"{number} {TEXT}" for number in range(n_rows)]})


def lines(n_rows: int) -> bytes:
    return "".join(f'{{"text": "{number} {TEXT}"}}\n' for number in range(n_rows)).encode()


def cells(n_rows: int) -> bytes:
    return "".join(["text\n", *(f"{number} {TEXT}\n" for number in range(n_rows))]).encode()


def write_one_row_group(path: Path, n_rows: int) -> None:
    pq.write_table(rows(n_rows), path, compression="none", use_dictionary=False)


def write_arrow(path: Path, n_rows: int) -> None:
    table = rows(n_rows)
    with ipc.new_file(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=2_000)


WRITE: dict[str, Callable[[Path, int], object]] = {
    ".jsonl": lambda path, n: path.write_bytes(lines(n)),
    ".json": lambda path, n: path.write_bytes(b"[" + lines(n).replace(b"\n", b",")[:-1] + b"]"),
    ".csv": lambda path, n: path.write_bytes(cells(n)),
    ".csv.zst": lambda path, n: path.write_bytes(COMPRESSORS[".zst"](cells(n))),
    ".jsonl.gz": lambda path, n: path.write_bytes(COMPRESSORS[".gz"](lines(n))),
    ".parquet": write_one_row_group,
    ".arrow": write_arrow,
}


@pytest.mark.slow
@pytest.mark.parametrize("suffix", WRITE)
def test_file_of_fifty_megabytes_takes_no_more_memory_than_its_parts(
    tmp_path: Path, suffix: str
) -> None:
    small, large = tmp_path / f"small{suffix}", tmp_path / f"large{suffix}"
    WRITE[suffix](small, 5_000)
    WRITE[suffix](large, ROWS)
    done = subprocess.run(
        [sys.executable, "-c", READ, str(small), str(large), str(ROWS)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 25  # mebibytes; the file has fifty
