"""The rows of a table with their places in a plane, as a Parquet file for viewers.

1. Fit the plane to a sample, spread evenly over a version of the table.
2. Place every row, shard by shard, in any process.
3. Write the shards in the table's order, a row group each: the same version gives the same bytes.
"""

from __future__ import annotations

import contextlib
import json
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from embedding_core.errors import LakeError, SetupError, UsageError, words
from embedding_core.lake import schema, vectors
from embedding_core.lake.ownership.owner import open_owned
from embedding_core.lake.scans import rows_of_fragments, scan
from embedding_core.lake.snapshot import Snapshot
from embedding_core.plurals import counted
from embedding_core.projections.projection import Placement, projection
from embedding_core.recipe import Recipe
from embedding_core.runs.exchange.claim import at_version
from embedding_core.runs.exchange.shards import Shard, cut
from embedding_core.runs.look.sample import sampled_vectors, spread, vector_column
from embedding_core.runs.outcome import Outcome

SHARD_ROWS = 10_000
"""Rows of a task and of a row group."""
COLUMNS = ("chunk_id", "doc_id", "source_uri", "chunk_index", "n_tokens", "text")
ABOUT = b"embedlake"
"""Schema metadata of the file: what its rows are of, as JSON."""


@dataclass(frozen=True, slots=True)
class MapJob:
    """What every task needs to place a shard. Small, pickles."""

    recipe: Recipe
    version: int
    column: str
    names: tuple[str, ...]
    """Columns that are written beside the places."""
    axes: tuple[str, str]
    """Names of the places: ``x`` and ``y``, or longer where the table has such columns."""
    placement: Placement


@dataclass(frozen=True, slots=True)
class BegunMap:
    """A map whose plane is fitted."""

    job: MapJob
    snapshot: Snapshot
    shards: tuple[Shard, ...]
    method: str
    fitted_rows: int


@dataclass(frozen=True, slots=True)
class MapReport:
    """A map that was written."""

    recipe: str
    table: str
    """URI of the table."""
    table_version: int
    column: str
    """The column of vectors."""
    method: str
    out: str
    """The file."""
    rows: int
    left_out: int
    """Rows without a finite vector."""
    fitted_rows: int
    """Rows that the plane was fitted to."""
    text: str
    """Name of the column of texts, for a viewer; likewise the next two."""
    x: str
    y: str
    columns: tuple[str, ...]
    """All columns of the file."""
    size_bytes: int
    seconds: float

    @property
    def outcome(self) -> Outcome:
        """A map is complete or raised an error."""
        return "done"


def begin_map(recipe: Recipe, method: str, column: str | None, n_fitted: int) -> BegunMap:
    """Fit a plane to a sample of the recipe's table.

    Raises ``LakeError`` when there is no table, when it has no rows and when none of them has a
    finite vector; ``UsageError`` for a column or a projection that is not there.
    """
    projection(method)
    snapshot = open_owned(recipe)
    name = vector_column(snapshot, column)
    where = f"table {snapshot.table.name!r} in {snapshot.table.lake.uri}"
    if name is None:
        raise LakeError(f"{where} has no column of vectors to make a map of", action="reembed")
    if not snapshot.n_rows:
        raise LakeError(f"{where} has no rows to make a map of", action="embed")
    sample = sampled_vectors(snapshot, name, spread(snapshot.n_rows, n_fitted))
    fitted = sample[np.isfinite(sample).all(axis=1)]
    if not len(fitted):
        raise LakeError(
            f"none of {counted(len(sample), 'sampled row')} of {where} has a finite vector in "
            f"column {name!r}, so there is no map of it",
            action="verify",
        )
    placement = projection(method, len(fitted)).fit(fitted)
    metadata = schema.metadata_names(snapshot.schema)
    names = (*COLUMNS, *(column for column in metadata if column in snapshot.schema.names))
    job = MapJob(recipe, snapshot.version, name, names, _axes(names), placement)
    shards = tuple(cut("", None, rows_of_fragments(snapshot), SHARD_ROWS, 0))
    return BegunMap(job, snapshot, shards, method, len(fitted))


def place_shard(job: MapJob, shard: Shard) -> pa.Table:
    """The rows of a shard that have a finite vector, with their places."""
    return place_rows(at_version(open_owned(job.recipe).table, job.version), job, shard)


def place_rows(snapshot: Snapshot, job: MapJob, shard: Shard) -> pa.Table:
    """``place_shard`` of a version that is open."""
    fragments = [snapshot.dataset.get_fragment(number) for number in shard.fragment_ids]
    batches = scan(
        snapshot,
        [*job.names, job.column],
        doing="reading",
        fragments=fragments,
        start=shard.start,
        most_rows=shard.rows,
    )
    fields = [snapshot.schema.field(name).remove_metadata() for name in job.names]
    written = pa.schema([*fields, *(pa.field(axis, pa.float32()) for axis in job.axes)])
    placed = [_placed(batch, job, written) for batch in batches]
    return pa.Table.from_batches(placed, schema=written).combine_chunks()


def finish_map(begun: BegunMap, placed: Iterable[pa.Table], out: Path, started: float) -> MapReport:
    """Write the placed shards, in order, to a file that appears complete or not at all.

    ``started`` is of ``time.perf_counter``. Raises ``SetupError`` for a file that cannot be
    written.
    """
    job, n_rows = begun.job, 0
    writer: pq.ParquetWriter | None = None
    with _new_file(out) as partial:
        for shard in placed:
            if writer is None:
                about = json.dumps(_about(begun), sort_keys=True)
                written = shard.schema.with_metadata({ABOUT: about})
                writer = pq.ParquetWriter(partial, written, compression="zstd")
            if shard.num_rows:
                writer.write_table(shard, row_group_size=SHARD_ROWS)
            n_rows += shard.num_rows
        if writer is not None:
            writer.close()
    return MapReport(
        recipe=job.recipe.name,
        table=begun.snapshot.table.uri,
        table_version=job.version,
        column=job.column,
        method=begun.method,
        out=str(out),
        rows=n_rows,
        left_out=begun.snapshot.n_rows - n_rows,
        fitted_rows=begun.fitted_rows,
        text="text",
        x=job.axes[0],
        y=job.axes[1],
        columns=(*job.names, *job.axes),
        size_bytes=out.stat().st_size,
        seconds=time.perf_counter() - started,
    )


def named_columns(path: Path) -> tuple[str, str, str]:
    """Names of the text and of the two places in a map. Raises ``SetupError`` for a file that is
    none."""
    try:
        about = json.loads((pq.read_schema(path).metadata or {})[ABOUT])
        return "text", about["x"], about["y"]
    except (OSError, ValueError, KeyError) as error:
        raise SetupError(
            f"{path} is no map that embedlake wrote ({words(error)}); make one of the table, and "
            "name that file"
        ) from error


def check_replaceable(out: Path) -> None:
    """Raise ``UsageError`` where a map would overwrite something else. Another map and an empty
    file may be overwritten."""
    if not out.exists() or not out.stat().st_size:
        return
    try:
        named_columns(out)
    except SetupError as error:
        raise UsageError(
            f"{out} is there and is no map that embedlake wrote, so it is not overwritten; name "
            "another file, or remove that one"
        ) from error


def placed_here(begun: BegunMap, check: Callable[[], None] = lambda: None) -> Iterator[pa.Table]:
    """Every shard, placed in this process; ``check`` is called between them."""
    for shard in begun.shards:
        check()
        yield place_rows(begun.snapshot, begun.job, shard)


def _placed(batch: pa.RecordBatch, job: MapJob, written: pa.Schema) -> pa.RecordBatch:
    numbers = vectors.to_numpy(batch.column(job.column))
    usable = np.isfinite(numbers).all(axis=1)
    points = job.placement.place(numbers[usable])  # (n_usable, 2)
    kept = batch.select(list(job.names)).filter(pa.array(usable))
    places = [pa.array(points[:, axis], pa.float32()) for axis in (0, 1)]
    return pa.RecordBatch.from_arrays([*kept.columns, *places], schema=written)


def _axes(names: Sequence[str]) -> tuple[str, str]:
    """Names for the places that no column has."""
    x, y = "x", "y"
    while {x, y} & set(names):
        x, y = f"map_{x}", f"map_{y}"
    return x, y


def _about(begun: BegunMap) -> Mapping[str, Any]:
    job = begun.job
    space_id, space = begun.snapshot.space(job.column)
    return {
        "recipe": job.recipe.name,
        "table": begun.snapshot.table.name,
        "table_version": job.version,
        "column": job.column,
        "space": {"space_id": space_id, **asdict(space)},
        "projection": begun.method,
        "fitted_rows": begun.fitted_rows,
        "x": job.axes[0],
        "y": job.axes[1],
    }


@contextmanager
def _new_file(out: Path) -> Iterator[Path]:
    """A file beside ``out`` that takes its name when all went well."""
    partial = out.with_name(f".{out.name}.{uuid.uuid4().hex}.partial")
    try:
        yield partial
        partial.replace(out)
    except OSError as error:
        raise SetupError(f"{out} cannot be written: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
