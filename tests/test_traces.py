"""The search for secrets finds them wherever it looks, so that finding none says something."""

from __future__ import annotations

import base64
import sqlite3
import zipfile
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import lance
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.compressed import COMPRESSORS
from tests.traces import traces

SECRET = "Canary/7Qx+secret=="


def table() -> pa.Table:
    return pa.table({"text": ["x" * 5000, SECRET]})


def schema() -> pa.Schema:
    return pa.schema([pa.field("a", pa.int8(), metadata={"url": SECRET})])


def sqlite(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("create table logs (id integer, message text)")
    connection.execute("insert into logs values (1, ?)", [f"at {SECRET}"])
    connection.commit()
    connection.close()


def ipc(path: Path) -> None:
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_stream(path, table().schema, options=options) as writer:
        writer.write_table(table())


def archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as written:
        written.writestr("inside.txt", SECRET * 3)


def old_version(path: Path) -> None:
    lance.write_dataset(table(), path)
    lance.write_dataset(pa.table({"text": ["another"]}), path, mode="overwrite")


HIDDEN: dict[str, Callable[[Path], object]] = {
    "plain.txt": lambda path: path.write_text(f"a {SECRET} b"),
    "basic.txt": lambda path: path.write_bytes(base64.b64encode(f"me:{SECRET}".encode())),
    "more.txt": lambda path: path.write_bytes(base64.b64encode(f"x{SECRET}yz".encode())),
    "url.txt": lambda path: path.write_text(f"https://h/?k={quote(SECRET, safe='')}"),
    "hex.txt": lambda path: path.write_text(SECRET.encode().hex()),
    "rows.parquet": lambda path: pq.write_table(table(), path, compression="zstd"),
    "field.parquet": lambda path: pq.write_table(pa.table({"a": [1]}, schema()), path),
    "rows.arrow": ipc,
    "prefect.db": sqlite,
    "pages.zip": archive,
    "docs.lance": old_version,
} | {
    f"rows{suffix}": lambda path, pack=pack: path.write_bytes(pack(SECRET.encode() * 9))
    for suffix, pack in COMPRESSORS.items()
}


@pytest.mark.parametrize("name", HIDDEN)
def test_secret_is_seen_in(name: str, tmp_path: Path) -> None:
    HIDDEN[name](tmp_path / name)
    assert f"key in {tmp_path / name}" in traces([tmp_path], {"key": SECRET})
    assert traces([tmp_path], {"key": "another secret of that length"}) == []
