"""What stands beside the rows of an export: recipe, space, card, rejects, manifest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import yaml

from embedding_core.exports.card import CARD, dataset_card
from embedding_core.exports.destination import DigestedFile
from embedding_core.exports.exporter import KNOWN_EXPORTERS, ShardInfo
from embedding_core.exports.manifest import (
    SPACE,
    ExportedFile,
    FileKind,
    Manifest,
    to_json,
)
from embedding_core.lake import ledger
from embedding_core.lake.scans import scan
from embedding_core.lake.schema import REJECTS_SCHEMA
from embedding_core.lake.snapshot import Snapshot
from embedding_core.redaction import without_secrets
from embedding_core.runs.exchange.claim import ExportJob, asked_of, at_version, claimed_files
from embedding_core.runs.exchange.shards import ExportPlan

REJECTS, RECIPE = "rejects.parquet", "recipe.yaml"


def described_space(snapshot: Snapshot, vector: str | None) -> dict[str, Any] | None:
    """The space of a column of vectors as plain values; None without the column."""
    if vector is None:
        return None
    identifier, space = snapshot.space(vector)
    described: dict[str, Any] = without_secrets({"space_id": identifier} | asdict(space))
    return described


def manifest_of(
    job: ExportJob, snapshot: Snapshot, plan: ExportPlan, files: Sequence[ExportedFile]
) -> Manifest:
    """What an export with these files says of itself."""
    columns = plan.columns
    cutter = snapshot.cutter()
    return Manifest(
        recipe=job.recipe.name,
        table=snapshot.table.name,
        table_version=job.table_version,
        rejects_version=job.rejects_version,
        space=described_space(snapshot, columns.vector),
        cutter=None if cutter is None else without_secrets(asdict(cutter)),
        spec=asked_of(job.spec),
        columns=tuple(
            {"name": field.name, "column": name, "type": str(field.type)}
            for name, field in zip(columns.names, columns.schema, strict=True)
        ),
        folders=dict(plan.folders),
        rows=plan.rows,
        files=tuple(sorted(files, key=lambda file: file.path)),
    )


def write_beside(job: ExportJob, snapshot: Snapshot, plan: ExportPlan) -> Iterator[ExportedFile]:
    """Write the files beside the rows."""
    space = described_space(snapshot, plan.columns.vector)
    content = without_secrets(job.recipe.model_dump(mode="json", exclude_unset=True))
    recipe = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    yield _rejects(job, snapshot)
    yield _small(job, RECIPE, "recipe", recipe.encode())
    if space is not None:
        yield _small(job, SPACE, "space", to_json(space))
    card = dataset_card(manifest_of(job, snapshot, plan, []), plan.shards[0].stem)
    yield _small(job, CARD, "card", card.encode())


def _small(job: ExportJob, path: str, kind: FileKind, data: bytes) -> ExportedFile:
    with claimed_files(job, [path]) as (file,):
        file.write(data)
    return entry_of(path, kind, file)


def _rejects(job: ExportJob, snapshot: Snapshot) -> ExportedFile:
    """Write what was left out of the table, as Parquet whatever the format is."""
    n_rows = 0

    def batches() -> Iterator[pa.RecordBatch]:
        nonlocal n_rows
        if job.rejects_version is None:
            return
        table = ledger.rejects_table(snapshot.table)
        for batch in scan(at_version(table, job.rejects_version), REJECTS_SCHEMA.names):
            n_rows += batch.num_rows
            yield batch.cast(REJECTS_SCHEMA)

    info = ShardInfo(REJECTS_SCHEMA, 0, None)
    with claimed_files(job, [REJECTS]) as files:
        KNOWN_EXPORTERS.get("parquet").write(batches(), files, info)
    return entry_of(REJECTS, "rejects", files[0], rows=n_rows)


def entry_of(
    path: str,
    kind: FileKind,
    file: DigestedFile,
    shard: int | None = None,
    rows: int | None = None,
) -> ExportedFile:
    """The manifest's line for a file that was written."""
    return ExportedFile(path, kind, file.size_bytes, file.sha256, shard, rows)
