"""Targets: the small files of a lake and of an export, as somebody who may write there leaves them.

Whatever is in them, reading ends with what was written, with nothing, or with an error of
embedlake's; no path in them leads out of the lake.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save

from embedding_core.errors import EmbedlakeError
from embedding_core.lake import lock, staging
from embedding_core.lake.lock import Timing
from embedding_core.lake.rows.choices import read_choice
from embedding_core.lake.spaces.bridges import bridge_path, read_bridge
from embedding_core.lake.spaces.references import read_reference
from embedding_core.lake.table import Table, table_of
from embedding_core.records import EmbeddedUnit
from embedding_core.runs.choosing.survey import SURVEY_SCHEMA
from embedding_core.runs.embed.chunk_stage import chunk_unit
from embedding_core.runs.embed.embed_stage import embed_unit
from embedding_core.runs.embed.saved import finished_packs, finished_units
from embedding_core.runs.embed.units import work_units
from embedding_core.runs.exchange.incoming_files import incoming
from embedding_core.runs.watched.run_record import RunRecord, read_record
from embedding_core.store import layout
from embedding_core.store.storage import StorageSpec
from embedding_core.store.untrusted.npy import npy_bytes
from experiments.fuzz.mutation import Material, Shape
from experiments.fuzz.shapes import change_json, change_line, change_table, change_value, nest
from experiments.fuzz.target import Check, Target, Wrong
from tests.driver import begin, recipe_for, run, write_jsonl

SPACE = "0" * 64
PATHS = (b"../../x", b"/etc/passwd", b"..", b"\\u0000", b"file:///etc/passwd", b"s3://b/x",
         b"%2e%2e/",
         b"data/", b"null", b"NaN", b"-1", b"1e999", b"[]", b"{}", b'"', b"[", b"{", b",",
         b"1" * 5_000,
         b"\xff", b"\\ud800", b"true")  # fmt: skip
NO_WAIT = Timing(beat=60.0, expiry=0.0, poll=0.001)
"""A record that does not change belongs to a dead run at once."""


@contextmanager
def _table(folder: Path) -> Iterator[Table]:
    write_jsonl(folder, "a.jsonl", {"x": "words", "y": " "})
    recipe = recipe_for(folder)
    run(recipe)
    yield table_of(recipe)


def _json_target(name: str, content: Any, opened: Callable[[Path], Any]) -> Target:
    seed = json.dumps(content).encode()
    return Target(name, lambda: [seed], opened, PATHS, (change_json, change_json, nest(b"[", b"]")))


# The lock of a table

HOLDER = {
    "holder": "run a", "host": "h", "process": 1, "since": "2026-01-01T00:00:00+00:00",
    "renewed": "2026-01-01T00:00:00+00:00", "token": "t", "beats": 3, "given_back": False,
}  # fmt: skip


@contextmanager
def _locks(folder: Path) -> Iterator[Check]:
    with _table(folder) as table:
        records = Path(layout.lock_folder(table.lake.uri, table.name, "lock"))
        records.mkdir(parents=True, exist_ok=True)

        def check(data: bytes) -> str:
            for path in records.glob("*"):
                path.unlink()
            (records / "7.json").write_bytes(data)
            held = lock.held_lock(table, "lock")
            holder = lock.holder_of(table)
            taken = lock.acquire(table, "lock", "fuzz", 0.0, NO_WAIT)
            if taken.number != 8:
                raise Wrong(f"the lock has number {taken.number} after 7")
            if holder is not None:
                holder.encode("utf-8", "surrogatepass")
            return "free" if holder is None else "held" if held else "unclear"

        yield check


LOCK = _json_target("lock", HOLDER, _locks)


# How far a run is


@contextmanager
def _run_records(folder: Path) -> Iterator[Check]:
    with _table(folder) as table:
        path = Path(layout.run_path(table.lake.uri, table.name))

        def check(data: bytes) -> str:
            path.write_bytes(data)
            record = read_record(table)
            if record is None:
                return "none"
            for number in (record.started_at, record.updated_at, record.seconds, record.units_done):
                if type(number) not in (int, float):
                    raise Wrong(f"{number!r} where a number belongs")
            if record.chunks and not all(type(n) is int for n in record.chunks.values()):
                raise Wrong(f"chunks are {record.chunks}")
            sum(asdict(record.stages).values())
            return "record"

        yield check


RUN_RECORD = _json_target(
    "run-record",
    asdict(RunRecord("run", "running", 1.5, 2.5, None, chunks={"embedded": 3})),
    _run_records,
)


# What became of a unit that is not committed yet

FRAGMENT = {
    "id": 0,
    "files": [{"fields": [*range(12)], "column_indices": [*range(12)], "file_major_version": 2,
               "file_minor_version": 2, "file_size_bytes": 4_236, "base_id": None,
               "path": "@DATA@"}],
    "overlays": [], "physical_rows": 1, "deletion_file": None, "row_id_meta": None,
    "created_at_version_meta": None, "last_updated_at_version_meta": None,
}  # fmt: skip
REPORT: dict[str, Any] = {
    "counts": [{"file_key": "@KEY@", "source_uri": "@FOLDER@/src/a.jsonl", "documents": 1,
                "rejected": 1, "chunks": 1, "dropped": 0, "tokens": 1, "embedded": 1, "reused": 0,
                "failed": 0, "duplicates": 0, "left_out": 0}],
    "file_rejects": [], "reasons": {"empty_text": 1}, "ids_path": None, "rejected_keys": [],
    "reject_paths": ["@FOLDER@/lake/_embedlake/docs/staged/@UNIT@/rejects.arrow"],
    "stages": {"read": 0.1, "chunk": 0.1, "load": 0.1, "tokenise": 0.0, "forward": 0.1,
    "write": 0.1,
               "commit": 0.0, "wait": 0.0},
    "fragments": [json.dumps(FRAGMENT)], "recomputed": 0,
    "model": {"batches": 0, "tokens": 0, "room": 0, "halvings": 0, "token_wait_seconds": 0.0},
}  # fmt: skip
"""As it is saved; names that hang on the folder are filled in when it is read."""


def _change_fragment(data: bytes, chance: Random, material: Material) -> bytes | None:
    """Change the metadata of a fragment, which is JSON within JSON."""
    try:
        report = json.loads(data)
        inner = change_value(json.loads(report["fragments"][0]), chance)
    except (ValueError, TypeError, LookupError, RecursionError):
        return None
    return json.dumps(
        report | {"fragments": [json.dumps(inner, default=str)]}, default=str
    ).encode()


@contextmanager
def _reports(folder: Path) -> Iterator[Check]:
    write_jsonl(folder, "a.jsonl", {"x": "words", "y": " "})
    recipe = recipe_for(folder)
    job, planned = begin(recipe)
    (unit,) = work_units(planned, 1)
    right = embed_unit(job, chunk_unit(job, unit))
    table = job.table
    path = Path(staging.staged_path(table, unit.unit_id, staging.REPORT))
    (file,) = json.loads(right.fragments[0])["files"]
    names = {
        b"@FOLDER@": str(folder).encode(),
        b"@UNIT@": unit.unit_id.encode(),
        b"@KEY@": unit.files[0].file_key.encode(),
        b"@DATA@": file["path"].encode(),
        b"4236": str(file["file_size_bytes"]).encode(),
    }

    marks = re.compile(b"|".join(names))

    def check(data: bytes) -> str:
        # In one pass: a digest that was put in may hold the digits of the size.
        path.write_bytes(marks.sub(lambda mark: names[mark[0]], data))
        packs = finished_packs(job, planned)
        finished = finished_units(job, [unit])
        for result in (*packs, *finished):
            _check_inside(table, result)
        return "goes on" if finished else "done again"

    if check(json.dumps(REPORT).encode()) != "goes on":
        raise AssertionError("the good report is not good")
    yield check


def _check_inside(table: Table, unit: EmbeddedUnit) -> None:
    """Raise ``Wrong`` when a unit names a file that is not its own."""
    staged = f"{staging.staging_folder(table)}/{unit.unit.unit_id}/"
    for path in filter(None, (*unit.reject_paths, unit.ids_path)):
        if not path.startswith(staged) or "/" in path.removeprefix(staged) or ".." in path:
            raise Wrong(f"a staged file {path}")
    for fragment in unit.fragments:
        for file in json.loads(fragment)["files"]:
            if "/" in file["path"] or ".." in file["path"] or file.get("base_id") is not None:
                raise Wrong(f"a data file {file['path']}")
    if {counts.file_key for counts in unit.counts} != {file.file_key for file in unit.unit.files}:
        raise Wrong("counts of other files")


UNIT_REPORT = Target(
    "unit-report",
    lambda: [json.dumps(REPORT).encode()],
    _reports,
    (*PATHS, b"@FOLDER@", b"@UNIT@", b"@DATA@", b"../"),
    (change_json, _change_fragment, _change_fragment, nest(b"[", b"]")),
)


# Matrices


def _matrix() -> Sequence[bytes]:
    target = io.BytesIO()
    np.save(target, np.eye(8, dtype=np.float32), allow_pickle=False)
    pickled = io.BytesIO()
    np.save(pickled, np.array([{"a": 1}], object), allow_pickle=True)
    return [target.getvalue(), pickled.getvalue()]


NPY_TOKENS = (b"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999,), }", b"'|O'",
              b"\x93NUMPY",
              b"(8, 8)", b"(-1,)", b"'<f8'", b"'V16'", b"True", b"__import__('os')")  # fmt: skip


@contextmanager
def _bridges(folder: Path) -> Iterator[Check]:
    with _table(folder) as table:
        path = Path(bridge_path(table, SPACE, SPACE))
        path.parent.mkdir(parents=True)

        def check(data: bytes) -> str:
            path.write_bytes(data)
            try:
                return _matrix_ending(read_bridge(table, SPACE, SPACE))
            except EmbedlakeError:
                return "refused"

        yield check


@contextmanager
def _references(folder: Path) -> Iterator[Check]:
    recipe = recipe_for(folder)
    path = Path(layout.reference_path(recipe.lake.uri, SPACE))
    path.parent.mkdir(parents=True)

    def check(data: bytes) -> str:
        path.write_bytes(data)
        try:
            return _matrix_ending(read_reference(recipe.lake, SPACE))
        except EmbedlakeError:
            return "refused"

    yield check


def _matrix_ending(matrix: Any) -> str:
    if matrix is None:
        return "none"
    if matrix.dtype != np.float32 or matrix.ndim != 2:
        raise Wrong(f"{matrix.dtype} of {matrix.shape}")
    return "matrix"


BRIDGE = Target("bridge", _matrix, _bridges, NPY_TOKENS)
REFERENCE = Target("reference", _matrix, _references, NPY_TOKENS)


# Chosen documents


def _choices() -> Sequence[bytes]:
    target = pa.BufferOutputStream()
    files = SURVEY_SCHEMA.empty_table().replace_schema_metadata({"embedlake:surveyed_by": "x"})
    pq.write_table(files, target, compression="none")
    return [bytes(target.getvalue())]


@contextmanager
def _stored_choices(folder: Path) -> Iterator[Check]:
    with _table(folder) as table:
        path = Path(layout.choice_path(table.lake.uri, table.name))

        def check(data: bytes) -> str:
            path.write_bytes(data)
            stored = read_choice(table, SURVEY_SCHEMA)
            return "none" if stored is None else "choice"

        yield check


CHOICE = Target("choice", _choices, _stored_choices, (b"PAR1", b"\xff"), (change_table,))


# An export's manifest

EXPORT: dict[str, Any] = {
    "version": 1, "recipe": "r", "table": "docs", "table_version": 3, "rejects_version": None,
    "space": None, "cutter": None, "spec": {"to": "jsonl"}, "folders": {}, "rows": 1,
    "columns": [{"name": "text", "column": "text", "type": "string"}],
    "files": [{"path": "data/part-00000.jsonl", "kind": "rows", "size_bytes": 13, "shard": 0,
    "rows": 1,
               "sha256": "c7cd0bb2ff20f0ecb8ba2cc1f4a3a8a2ea0da6d95cb0bae5b5b6e3ee8e1ee2c5"}],
}  # fmt: skip


@contextmanager
def _manifests(folder: Path) -> Iterator[Check]:
    rows = b'{"text": "a"}'
    outside = folder / "outside.jsonl"
    outside.write_bytes(rows)
    export = folder / "export"
    (export / "data").mkdir(parents=True)
    (export / "data" / "part-00000.jsonl").write_bytes(rows)
    digest = hashlib.sha256(rows).hexdigest().encode()
    example = EXPORT["files"][0]["sha256"].encode()

    def check(data: bytes) -> str:
        (export / "manifest.json").write_bytes(data.replace(example, digest))
        try:
            files = incoming(str(export), StorageSpec(), None, {})
            for shard in files.shards:
                for path in shard:
                    if ".." in path or path.startswith("/"):
                        raise Wrong(f"reads {path}")
                for batch in files.batches(shard):
                    batch.validate(full=True)
        except EmbedlakeError as error:
            return type(error).__name__
        return "incoming"

    yield check


MANIFEST = Target(
    "manifest",
    lambda: [json.dumps(EXPORT).encode()],
    _manifests,
    (*PATHS, b"../outside.jsonl"),
    (change_json, change_json, nest(b"[", b"]")),
)


# Files of an import


def _vectors_file(suffix: str) -> bytes:
    matrix = np.eye(2, 4, dtype=np.float32)
    return npy_bytes(matrix) if suffix == ".npy" else save({"vector": matrix})


def _beside() -> bytes:
    target = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": ["a", "b"]}), target)
    return bytes(target.getvalue())


ROWS_OF_LINES = b"".join(
    json.dumps({"text": text, "vector": [1.0, 0.0]}).encode() + b"\n" for text in "ab"
)


def _incoming_target(name: str, suffix: str, seed: bytes, shapes: Sequence[Shape]) -> Target:
    """What reads a file of an import; vectors have their Parquet beside them."""

    @contextmanager
    def opened(folder: Path) -> Iterator[Check]:
        path = folder / f"a{suffix}"
        if suffix in (".npy", ".safetensors"):
            (folder / "a.parquet").write_bytes(_beside())

        def check(data: bytes) -> str:
            path.write_bytes(data)
            try:
                files = incoming(str(path), StorageSpec(), None, {})
                for shard in files.shards:
                    for batch in files.batches(shard):
                        batch.validate()
            except EmbedlakeError as error:
                return type(error).__name__
            return "incoming"

        yield check

    return Target(name, lambda: [seed], opened, (*NPY_TOKENS, *PATHS), shapes)


def _change_head(data: bytes, chance: Random, material: Material) -> bytes | None:
    """Change the JSON at the beginning of a safetensors file."""
    length = int.from_bytes(data[:8], "little")
    changed = change_json(data[8 : 8 + length], chance, material)
    if changed is None:
        return None
    return len(changed).to_bytes(8, "little") + changed + data[8 + length :]


IMPORT_JSONL = _incoming_target("import-jsonl", ".jsonl", ROWS_OF_LINES, (change_line,))
IMPORT_NPY = _incoming_target("import-npy", ".npy", _vectors_file(".npy"), ())
IMPORT_SAFETENSORS = _incoming_target(
    "import-safetensors", ".safetensors", _vectors_file(".safetensors"), (_change_head,)
)
