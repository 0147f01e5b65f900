"""Changes of structure: what is inside an archive, a compressed text, a JSON document, a table."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.ipc as ipc
import pyarrow.parquet as pq
import yaml

from experiments.fuzz.mutation import Material, Shape, mutated

ZIP_DATE = (1980, 1, 1, 0, 0, 0)
BOMB_BYTES = 48 * 2**20
"""Bytes that a small compressed file may hold."""
RECORD_BOMB_BYTES = 2**18
"""The same for a text that repeats: each line takes its time, and ten thousand inputs have many."""


# Archives and compressed texts


def unzipped(data: bytes) -> dict[str, bytes] | None:
    """The parts of an archive; None for what is none."""
    with suppress(Exception), zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}
    return None


def zipped(parts: dict[str, bytes]) -> bytes:
    """An archive of the parts: the same bytes for the same parts."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in parts.items():
            archive.writestr(zipfile.ZipInfo(name, ZIP_DATE), content, zipfile.ZIP_DEFLATED, 1)
    return target.getvalue()


def change_part(data: bytes, chance: Random, material: Material) -> bytes | None:
    """Change, drop, rename or blow up a part of an archive."""
    parts = unzipped(data)
    if not parts:
        return None
    name = chance.choice(list(parts))
    action = chance.randrange(8)
    if action == 0:
        del parts[name]
    elif action == 1:
        parts[chance.choice(list(parts))] = parts.pop(name)
    elif action == 2 and chance.random() < 0.1:
        parts[name] = parts[name] + bytes(BOMB_BYTES)
    else:
        parts[name] = mutated(parts[name], chance, material)
    return zipped(parts)


Codec = tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]
"""Compresses and decompresses."""


def _zstd(data: bytes) -> bytes:
    return bytes(pa.Codec("zstd").compress(data, asbytes=True))


def _unzstd(data: bytes) -> bytes:
    with pa.CompressedInputStream(pa.BufferReader(data), "zstd") as plain:
        return bytes(plain.read(BOMB_BYTES))


CODECS: dict[str, Codec] = {
    ".gz": (lambda data: gzip.compress(data, 1, mtime=0), gzip.decompress),
    ".bz2": (lambda data: bz2.compress(data, 1), bz2.decompress),
    ".zst": (_zstd, _unzstd),
}
"""By the end of a file's name."""


@cache
def bomb(suffix: str, character: bytes) -> bytes:
    """A small compressed text of very many equal characters."""
    compress, _ = CODECS[suffix]
    return compress(character * BOMB_BYTES)


def change_inside(suffix: str) -> Shape:
    """Change what a compressed text holds, let it explode, or put members behind each other."""
    compress, decompress = CODECS[suffix]

    def change(data: bytes, chance: Random, material: Material) -> bytes | None:
        try:
            plain = decompress(data)
        except Exception:
            return None
        action = chance.randrange(20)
        if action == 0 and chance.random() < 0.03:
            return bomb(suffix, chance.choice((b"\0", b"\n", b" ", b"[", b'"', b"x")))
        if action == 1 and plain and chance.random() < 0.3:
            return compress(plain * (RECORD_BOMB_BYTES // len(plain)))
        if action == 2:
            return compress(data)
        if action == 3:
            return data + bytes(chance.choice((1, 512))) + compress(plain)
        if action == 4:
            return data * chance.choice((2, 100))
        return compress(mutated(plain, chance, material))

    return change


# JSON and YAML

HOSTILE_VALUES: Sequence[Any] = (
    None, True, False, 0, -1, 2**31, 2**63, 2**64, -(2**63), 10**400, 1.5, 1e308, -0.0,
    float("nan"), float("inf"), "", " ", "x", "0", "1e5", "null", "../x", "/etc/passwd", "\0",
    "\ud800", "a\0b", "e\u0301", "\u202e", "\ufeff", "'", '"', "`", "{", "}", "{{", "{x|", "[0]",
    "a.b[0]['c']", "~nobody/x", "s3://", "s3://b/../k", "file:///x", "https://u:p@h/x",
    "x" * 5_000, "\n", "2024-13-45", "24:61:61", "!!int", "<<", [], {}, [[]], [None], {"": None},
    {"a": {"b": [1, {"c": 2}]}}, ["x"] * 50, b"bytes",
)  # fmt: skip
"""Values that belong nowhere, or nearly."""
DEEP = 2_000
"""Lists in lists: deeper than parsers go, or than they should."""


def _deep(chance: Random) -> Any:
    value: Any = "x"
    for _ in range(chance.choice((10, 100, 900))):
        value = [value] if chance.random() < 0.5 else {"a": value}
    return value


def hostile_value(chance: Random) -> Any:
    """A value that does not belong where it is put."""
    return _deep(chance) if chance.random() < 0.03 else chance.choice(HOSTILE_VALUES)


def change_value(value: Any, chance: Random) -> Any:
    """A document with something in it changed: a value, a name, what is there and how often."""
    if isinstance(value, dict) and value and chance.random() < 0.9:
        names = list(value)
        name = chance.choice(names)
        action = chance.randrange(12)
        if action == 0:
            return {key: value[key] for key in names if key != name}
        if action == 1:
            other = chance.choice(
                (*map(str, names), "", "x", "\ud800", "a.b", "__class__", "x" * 300)
            )
            return {other if key == name else key: value[key] for key in names}
        if action == 2:
            return value | {str(hostile_value(chance))[:50]: hostile_value(chance)}
        if action == 3:
            return value | {name: value[chance.choice(names)]}
        return value | {name: change_value(value[name], chance)}
    if isinstance(value, list) and value and chance.random() < 0.9:
        at = chance.randrange(len(value))
        action = chance.randrange(10)
        if action == 0:
            return value[:at] + value[at + 1 :]
        if action == 1:
            return value + [value[at]] * chance.choice((1, 2, 100))
        if action == 2:
            return chance.sample(value, len(value))
        return [*value[:at], change_value(value[at], chance), *value[at + 1 :]]
    return hostile_value(chance)


def _json(value: Any) -> str:
    """JSON, with NaN, numbers that no float holds, and halves of surrogate pairs."""
    return json.dumps(value, default=lambda other: str(other), ensure_ascii=True)


def change_json(data: bytes, chance: Random, material: Material) -> bytes | None:
    """Change a value of a JSON document."""
    with suppress(ValueError, RecursionError):
        return _json(change_value(json.loads(data), chance)).encode()
    return None


def change_line(data: bytes, chance: Random, material: Material) -> bytes | None:
    """Change a value of a line of JSON, or the lines themselves."""
    lines = data.split(b"\n")
    at = chance.randrange(len(lines))
    changed = change_json(lines[at], chance, material)
    if changed is None or chance.random() < 0.2:
        lines[at] = mutated(lines[at], chance, material)
    else:
        lines[at] = changed
    if chance.random() < 0.1:
        chance.shuffle(lines)
    return b"\n".join(lines)


def nest(opening: bytes, closing: bytes) -> Shape:
    """Put very many brackets around an input, or in it."""

    def change(data: bytes, chance: Random, material: Material) -> bytes | None:
        if chance.random() > 0.1:
            return None
        times = chance.choice((100, DEEP, 50_000))
        if chance.random() < 0.5:
            return opening * times + data + closing * times
        at = chance.randrange(len(data) + 1)
        return data[:at] + opening * times + data[at:]

    return change


def change_yaml(data: bytes, chance: Random, material: Material) -> bytes | None:
    """Change a value of a YAML document."""
    try:
        value = yaml.safe_load(data)
    except Exception:
        return None
    try:
        changed = change_value(value, chance)
        for _ in range(chance.choice((0, 0, 1, 2))):
            changed = change_value(changed, chance)
        return yaml.safe_dump(changed, allow_unicode=True).encode("utf-8", "surrogatepass")
    except (yaml.YAMLError, RecursionError):
        return None


# Tables


def _read_table(data: bytes) -> pa.Table | None:
    source = pa.BufferReader(data)
    with suppress(Exception):
        if data[:4] == b"PAR1":
            return pq.read_table(source)
        opened = ipc.open_file if data[:6] == b"ARROW1" else ipc.open_stream
        return opened(source).read_all()
    return None


def _odd_columns(chance: Random, n_rows: int) -> pa.Array:
    """A column of a type that a mapping rarely sees, with values at the ends of its range."""
    rows = range(n_rows)
    makers: Sequence[Callable[[], pa.Array]] = (
        lambda: pa.nulls(n_rows),
        lambda: pa.array([b"\xff\xfe" if row % 2 else b"text" for row in rows], pa.binary()),
        lambda: pa.array([b"\xff\xfe" if row % 2 else b"ok" for row in rows]).view(pa.string()),
        lambda: pa.array(["x"] * n_rows, pa.large_string()),
        lambda: pa.array(["x"] * n_rows, pa.string_view()),
        lambda: pa.array(["x", None] * n_rows)[:n_rows].dictionary_encode(),
        lambda: pa.array([2**62 - row for row in rows], pa.timestamp("s")),
        lambda: pa.array([-(2**62) + row for row in rows], pa.timestamp("ns", "Nowhere/Land")),
        lambda: pa.array([2**31 - 1 - row for row in rows], pa.date32()),
        lambda: pa.array([2**62 for _ in rows], pa.date64()),
        lambda: pa.array([86_399 - row % 3 for row in rows], pa.time32("s")),
        lambda: pa.array([2**62 for _ in rows], pa.duration("s")),
        lambda: pa.array(np.full(n_rows, np.nan, np.float32)),
        lambda: pa.array(np.full(n_rows, np.inf, np.float16)),
        lambda: pa.array([1 if row % 2 else None for row in rows], pa.decimal128(38, 10)),
        lambda: pa.array([[row] * (row % 3) for row in rows], pa.list_(pa.int64())),
        lambda: pa.array([[("a", row)] for row in rows], pa.map_(pa.string(), pa.int64())),
        lambda: pa.array([{"a": {"b": row}} for row in rows]),
        lambda: pa.array([2**64 - 1] * n_rows, pa.uint64()),
        lambda: pa.array([True, None] * n_rows)[:n_rows],
        lambda: pa.array([bytes(16)] * n_rows, pa.binary(16)),
    )
    make: Callable[[], pa.Array] = chance.choice(makers)
    return make()


def change_table(data: bytes, chance: Random, material: Material) -> bytes | None:
    """Put an odd column in, or write the same rows in another way."""
    table = _read_table(data)
    if table is None:
        return None
    for _ in range(chance.randint(0, 2)):
        name = chance.choice((*table.schema.names, "title", "extra", ""))
        with suppress(pa.ArrowException, ValueError, OverflowError):
            column = _odd_columns(chance, table.num_rows)
            at = table.schema.get_field_index(name)
            table = (
                table.append_column(name, column)
                if at < 0 or chance.random() < 0.1
                else table.set_column(at, name, column)
            )
    with suppress(pa.ArrowException, ValueError, NotImplementedError):
        return chance.choice(WRITERS)(table, chance)
    return None


def _parquet(table: pa.Table, chance: Random) -> bytes:
    target = pa.BufferOutputStream()
    pq.write_table(
        table,
        target,
        row_group_size=chance.choice((1, 2, 100)),
        compression=chance.choice(("none", "snappy", "zstd", "gzip", "brotli", "lz4")),
        use_dictionary=chance.random() < 0.5,
        data_page_version=chance.choice(("1.0", "2.0")),
        version=chance.choice(("1.0", "2.4", "2.6")),
        use_deprecated_int96_timestamps=chance.random() < 0.3,
        write_page_checksum=chance.random() < 0.2,
    )
    return bytes(target.getvalue())


def _feather(table: pa.Table, chance: Random) -> bytes:
    target = pa.BufferOutputStream()
    compression = chance.choice(("uncompressed", "lz4", "zstd"))
    feather.write_feather(table, target, compression, chunksize=chance.choice((1, 2, 100)))
    return bytes(target.getvalue())


def _arrow_stream(table: pa.Table, chance: Random) -> bytes:
    target = pa.BufferOutputStream()
    with ipc.new_stream(target, table.schema) as writer:
        writer.write_table(table, max_chunksize=chance.choice((1, 2, 100)))
    return bytes(target.getvalue())


WRITERS: Sequence[Callable[[pa.Table, Random], bytes]] = (_parquet, _feather, _arrow_stream)


# Answers over HTTP


def change_body(data: bytes, chance: Random, material: Material) -> bytes | None:
    """Change the JSON of an answer; its length is right again."""
    _, _, body = data.partition(b"\r\n\r\n")
    changed = change_json(body, chance, material)
    if changed is None:
        return None
    if chance.random() < 0.1:
        changed = mutated(changed, chance, material)
    return answer_of(changed)


def answer_of(body: bytes, status: str = "200 OK", headers: str = "") -> bytes:
    """An answer as it goes over the wire."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{headers}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
