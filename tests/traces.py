"""Traces of secrets in files: whatever a file holds, its values are read and searched."""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import json
import sqlite3
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from urllib.parse import quote, quote_plus

import lance
import pyarrow as pa
import pyarrow.parquet as pq

LEAST_BASE64 = 8
"""Characters of a secret in the middle of base64 that are looked for, whatever stands around it."""


def forms(secret: str) -> set[bytes]:
    """The bytes that a secret may be written as: plain, in JSON, in a URL, in base64, in hex."""
    plain = secret.encode()
    written = {plain, json.dumps(secret)[1:-1].encode(), plain.hex().encode()}
    written |= {quote(secret).encode(), quote(secret, safe="").encode()}
    written |= {quote_plus(secret).encode(), secret.replace("/", "\\/").encode()}
    for before in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            encoded = encode(b"\0" * before + plain)
            middle = encoded[(before * 8 + 5) // 6 : (before + len(plain)) * 8 // 6]
            if len(middle) >= LEAST_BASE64:
                written.add(middle)
    return written


def traces(
    folders: Iterable[Path], secrets: Mapping[str, str], kept: Iterable[Path] = ()
) -> list[str]:
    """Each secret with each file below the folders that has it, as ``name in path``.

    ``kept`` are the files in which a secret belongs.
    """
    needles = {name: forms(secret) for name, secret in secrets.items()}
    own = set(kept)
    return sorted(
        {
            f"{name} in {path}"
            for folder in folders
            for path, content in contents(folder)
            if path not in own
            for name, written in needles.items()
            if any(form in content for form in written)
        }
    )


def contents(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """Every file below a folder, as it is and as what its values say, by its path."""
    for path in sorted(folder.rglob("*")):
        if path.is_dir() and path.suffix == ".lance":
            yield path, b"\n".join(_of_lance(path))
        elif path.is_file() and not path.is_symlink():
            raw = path.read_bytes()
            yield path, str(path.relative_to(folder)).encode(errors="replace")
            yield path, raw
            yield from ((path, values) for values in _values(path, raw))


def _values(path: Path, raw: bytes) -> Iterator[bytes]:
    """What a file says beyond its bytes: of a database, a table, an archive, compressed data."""
    if raw.startswith(b"SQLite format 3"):
        yield from _of_sqlite(path)
    elif raw.startswith(b"\x1f\x8b"):
        yield gzip.decompress(raw)
    elif raw.startswith(b"BZh"):
        yield bz2.decompress(raw)
    elif raw.startswith(b"\x28\xb5\x2f\xfd"):
        yield pa.CompressedInputStream(io.BytesIO(raw), "zstd").read()
    elif raw.startswith(b"PAR1"):
        yield _of_arrow(pq.read_table(io.BytesIO(raw)))
    elif raw.startswith(b"ARROW1"):
        yield _of_arrow(pa.ipc.open_file(raw).read_all())
    elif path.suffix == ".arrow":
        yield _of_arrow(pa.ipc.open_stream(raw).read_all())
    elif raw.startswith(b"PK\x03\x04"):
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            for name in archive.namelist():
                yield archive.read(name)


def _of_sqlite(path: Path) -> Iterator[bytes]:
    """Every value of every table, whatever journal holds it."""
    connection = sqlite3.connect(path)
    try:
        tables = connection.execute("select name from sqlite_master where type = 'table'")
        for (table,) in tables.fetchall():
            for row in connection.execute(f'select * from "{table}"'):
                cells = (cell if isinstance(cell, bytes) else str(cell).encode() for cell in row)
                yield b"\n".join(cells)
    finally:
        connection.close()


def _of_lance(path: Path) -> Iterator[bytes]:
    """Every version's rows and metadata."""
    for version in lance.dataset(path).versions():
        dataset = lance.dataset(path, version=version["version"])
        yield _of_arrow(dataset.to_table())
        yield repr((version, dataset.schema.metadata)).encode()


def _of_arrow(table: pa.Table) -> bytes:
    schema = table.schema
    metadata = [schema.metadata, *(field.metadata for field in schema)]
    return repr((metadata, table.to_pylist())).encode()
