"""Import rows that have their vectors already: an export, or files that others wrote."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa

from embedding_core.encoder.engines import ModelInfo, describe_model
from embedding_core.errors import LakeError, ModelError, SetupError, Transient, UsageError
from embedding_core.identity import SHOWN_DIGITS, space_id
from embedding_core.lake import schema
from embedding_core.lake.faults import tried_again
from embedding_core.lake.index.refresh import IndexPlan, refresh_indexes
from embedding_core.lake.ledger import LedgerEntry, record_entries
from embedding_core.lake.ownership.owner import ensure_table
from embedding_core.lake.rows.commit import replace_rows, write_fragments
from embedding_core.lake.rows.embedded import embedded_texts
from embedding_core.lake.snapshot import Snapshot
from embedding_core.lake.table import table_of
from embedding_core.plurals import counted
from embedding_core.recipe import Recipe, Resources
from embedding_core.records import FileCounts, Space, StageSeconds
from embedding_core.runs.cutting import cutting_of
from embedding_core.runs.exchange.incoming_files import Incoming, incoming
from embedding_core.runs.exchange.incoming_rows import RowMaker, check_hashes, to_matrix
from embedding_core.runs.job import load_described, locked_for, settled
from embedding_core.runs.outcome import Outcome
from embedding_core.runs.serving import recognised

SAMPLE_ROWS = 64
"""Rows whose vectors are made again, spread over the files: seconds with a small model."""
SAMPLED_SHARDS = 16
LEAST_COSINE = 0.99
"""Other programs' half precision stays above it; another model, prompt or pooling falls far
below."""


RUN_ID = "import"
"""Stands in the ledger where the id of a run does."""


@dataclass(frozen=True, slots=True)
class ImportSpec:
    """How files are read."""

    format: str | None = None
    """Name of their format; default: told by their names, or by the export."""
    names: Mapping[str, str] | None = None
    """Names of columns in the files, by those in the table."""
    normalize: bool = False
    """Bring vectors to unit length."""
    sample_rows: int = SAMPLE_ROWS


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What was imported."""

    recipe: str
    table: str
    """URI of the table."""
    table_version: int
    origin: str
    """Where the files are."""
    format: str
    space_id: str
    rows: int
    shards: int
    checked_rows: int
    """Rows whose vectors were made again and compared."""
    unchecked: str | None
    """Why none was compared; None where some were, or none was asked for."""
    normalized: int
    """Vectors that were brought to unit length."""
    columns_made: tuple[str, ...]
    """Columns that the files do not have."""
    columns_left_out: tuple[str, ...]
    """Columns of the files that the recipe does not declare."""
    seconds: float

    @property
    def outcome(self) -> Outcome:
        """An import is complete or raised an error."""
        return "done"


def import_rows(
    recipe: Recipe,
    resources: Resources,
    origin: str,
    spec: ImportSpec = ImportSpec(),  # frozen
    wait_seconds: float = 60.0,
) -> ImportReport:
    """Make the recipe's table of files, in one commit, with a line in the ledger for each file that
    the rows are of.

    The table must have no rows. The space is that of the export, or of the recipe's model for
    files that others wrote; where the model is here, a sample is embedded again and compared.
    Raises ``SetupError`` for files that are damaged or of another space, ``LakeError`` for a table
    that has rows. Nothing is committed then.
    """
    started = time.perf_counter()
    files = incoming(origin, recipe.lake.storage, spec.format, spec.names or {})
    model = _Model.of(recipe, files)
    checked = _check_sample(recipe, resources, files, model, spec.sample_rows)
    with locked_for(recipe, "import", wait_seconds) as lock:
        snapshot = _empty_table(recipe, model)
        columns = snapshot.schema
        maker = RowMaker(columns, model.tokenizer, spec.normalize)
        fragments = write_fragments(snapshot.table, _rows(files, maker), columns)
        maker.check_unique()
        entries = [_entry(counts, model.identifier) for counts in maker.file_counts()]
        lock.check()
        record_entries(snapshot.table, entries)  # first: rows without a line would be read again
        committed = replace_rows(
            snapshot, "file_key", (), fragments, model.identifier, check=_check_empty
        )
    plan = IndexPlan.of(recipe)
    table = committed.table
    tried_again(f"index {table.uri}", lambda _attempt: refresh_indexes(table.open(), plan))
    return ImportReport(
        recipe=recipe.name,
        table=table.uri,
        table_version=table.open().version,
        origin=files.folder.uri,
        format=files.format,
        space_id=model.identifier,
        rows=committed.n_rows,
        shards=len(files.shards),
        checked_rows=checked,
        unchecked=model.problem if spec.sample_rows else None,
        normalized=maker.n_normalized,
        columns_made=tuple(sorted(maker.made)),
        columns_left_out=tuple(sorted(maker.left_out)),
        seconds=time.perf_counter() - started,
    )


def _entry(counts: FileCounts, identifier: str) -> LedgerEntry:
    """The ledger's line of an imported file: nobody knows what it said or what cut it."""
    return LedgerEntry(
        counts,
        fingerprint="",
        rows_id="",
        space_id=identifier,
        stages=StageSeconds(),
        run_id=RUN_ID,
    )


@dataclass(frozen=True, slots=True)
class _Model:
    """The space of the rows, and the recipe's model where it is here."""

    space: Space
    cutter: schema.Cutter
    info: ModelInfo | None
    problem: str | None
    """Why the model is not here."""

    @classmethod
    def of(cls, recipe: Recipe, files: Incoming) -> _Model:
        """Raises ``LakeError`` when the rows are of another space than the recipe's model,
        ``ModelError`` when neither says which space they are of."""
        manifest = files.manifest
        described = None if manifest is None else manifest.space
        if manifest is not None and described is None:
            raise UsageError(
                f"the export at {files.folder.uri} has no vectors; export it with its vectors, or "
                "embed its texts"
            )
        recorded = () if described is None else (_space(described),)
        try:
            info, problem = describe_model(recognised(recipe.model, recorded)), None
        except (ModelError, Transient) as error:
            if described is None:
                raise
            info, problem = None, str(error)
        space = info.space if info is not None else _space(described or {})
        if described is not None:
            _check_space(_space(described), space, str(described["space_id"]))
        if manifest is not None and manifest.cutter is not None:
            return cls(space, schema.Cutter(**manifest.cutter), info, problem)
        if info is None:
            raise ModelError(f"the export does not say what cut its texts, and {problem}")
        return cls(space, cutting_of(recipe, info, None).stored(), info, problem)

    @property
    def identifier(self) -> str:
        """The ``space_id``."""
        return space_id(self.space)

    @property
    def tokenizer(self) -> Any:
        """What counts tokens; None where the model is not here."""
        return None if self.info is None else self.info.tokenizer


def _space(described: Mapping[str, Any]) -> Space:
    """Raises ``SetupError`` for a space that embedlake did not write."""
    try:
        values = {field.name: described[field.name] for field in fields(Space)}
        return Space(**values | {"identity": tuple(values["identity"])})
    except (KeyError, TypeError) as error:
        raise SetupError(
            f"the manifest's space is damaged ({error}); copy the export again"
        ) from error


def _check_space(exported: Space, recipes: Space, identifier: str) -> None:
    if space_id(exported) != identifier:
        raise SetupError(
            f"the manifest's space is not what space_id {identifier[:SHOWN_DIGITS]} stands for; "
            "copy the export again"
        )
    if space_id(recipes) != identifier:
        raise LakeError(
            f"the export holds vectors of space {identifier[:SHOWN_DIGITS]} ({exported.model}), "
            f"the recipe's model gives space {space_id(recipes)[:SHOWN_DIGITS]} "
            f"({recipes.model}); they differ in {schema.difference(exported, recipes)}. Name the "
            "model of the export in the recipe"
        )


def _empty_table(recipe: Recipe, model: _Model) -> Snapshot:
    """The recipe's table, made when missing."""
    if (snapshot := table_of(recipe).open_if_made()) is not None:
        _check_empty(snapshot)
    pinned = recipe.model.pinned(model.space.revision)
    named = recipe.model_copy(update={"model": pinned})
    return ensure_table(named, model.space, model.cutter)


def _check_empty(snapshot: Snapshot) -> None:
    if snapshot.n_rows:
        raise LakeError(
            f"table {snapshot.table.name!r} in {snapshot.table.lake.uri} has "
            f"{counted(snapshot.n_rows, 'row')}, and an import makes a table of its files alone; "
            "name another lake.table"
        )


def _rows(files: Incoming, maker: RowMaker) -> Iterator[pa.RecordBatch]:
    for shard in files.shards:
        yield from maker.rows(files.batches(shard), files.folder.at(shard[0]))


def _check_sample(
    recipe: Recipe, resources: Resources, files: Incoming, model: _Model, n_rows: int
) -> int:
    """Embed some rows again; how many. Raises ``LakeError`` when one has another vector."""
    if model.info is None or not n_rows:
        return 0
    encoder = load_described(model.info, recipe.model, settled(resources))
    step = -(-len(files.shards) // SAMPLED_SHARDS)
    shards = files.shards[::step]
    n_checked = 0
    for shard in shards:
        where = files.folder.at(shard[0])
        batch = next(files.batches(shard), None)
        if batch is None or not batch.num_rows or not {"text", "vector"} <= {*batch.schema.names}:
            continue  # who makes the rows says what lacks
        each = max(1, batch.num_rows // -(-n_rows // len(shards)))
        check_hashes(batch, where)
        rows = batch.take(pa.array(range(0, batch.num_rows, each)))
        if "context" not in rows.schema.names:
            rows = rows.append_column("context", pa.nulls(rows.num_rows, pa.string()))
        vectors = to_matrix(rows.column("vector"), model.space.dim, where).astype(np.float64)
        made = encoder.encode_documents(embedded_texts(rows).to_pylist())
        with np.errstate(invalid="ignore", divide="ignore"):
            cosines = (vectors * made).sum(axis=1) / np.linalg.norm(vectors, axis=1)
        checkable = np.isfinite(cosines)  # a vector that no table takes is told by its row
        if (wrong := np.flatnonzero(checkable & (cosines < LEAST_COSINE))).size:
            raise LakeError(
                f"the vectors of {where} are not of the recipe's model {recipe.model.name}: text "
                f"{rows.column('text')[int(wrong[0])].as_py()[:40]!r} has a vector at cosine "
                f"{cosines[wrong[0]]:.3f} to the model's, at least {LEAST_COSINE} is needed. Name "
                "the model that made them, or embed the texts"
            )
        n_checked += rows.num_rows
    return n_checked
