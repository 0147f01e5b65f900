"""The state of a recipe's table, and its last runs."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, fields
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from embedding_core.lake import ledger
from embedding_core.lake.index.scalar import unindexed_rows
from embedding_core.lake.index.vector import IndexReport, stored_index
from embedding_core.lake.scans import file_versions
from embedding_core.lake.snapshot import Snapshot
from embedding_core.lake.spaces.switching import Release, releases
from embedding_core.lake.spaces.vector_columns import VectorColumn, columns
from embedding_core.lake.table import existing_table
from embedding_core.recipe import Recipe
from embedding_core.records import StageSeconds

LAST_RUNS = 5


@dataclass(frozen=True, slots=True)
class RunLine:
    """One run, from the ledger."""

    run_id: str
    finished_at: str
    """ISO 8601, UTC: when the last file of the run was recorded."""
    files: int
    chunks: int
    tokens: int
    stages: StageSeconds
    """Where the time of its files went, all workers together."""
    cost: float | None
    """What that work cost; None where the run knew no price."""


@dataclass(frozen=True, slots=True)
class Status:
    """A table at its newest version."""

    table: str
    version: int
    recipe: str | None
    rows: int
    files: int
    """Files that have rows."""
    fragments: int
    space_id: str
    space: dict[str, Any]
    """Description of the space in service."""
    spaces: tuple[VectorColumn, ...]
    """All spaces of the table, the one in service first."""
    retired: tuple[Release, ...]
    """Spaces whose vectors were dropped, newest first; what the table remembers of them."""
    vector_index: IndexReport | None
    """That of the space in service and how it was tuned; None when searches are exact."""
    unindexed_rows: dict[str, int]
    """Rows that an index does not cover yet, by the index's name."""
    ledger: dict[str, int]
    """Sums over the file versions that have rows now."""
    rejects: dict[str, int]
    """Rows of the rejects table by reason."""
    runs: tuple[RunLine, ...]
    """The last runs, newest first."""


@dataclass(frozen=True, slots=True)
class FileLine:
    """A file, as the table has it now or as it was last tried."""

    source_uri: str
    rows: int
    """In the table now."""
    documents: int
    rejected: int
    chunks: int
    embedded: int
    reused: int
    dropped: int
    failed: int
    tokens: int
    duplicates: int
    left_out: int
    """Documents that the recipe's sample or limit leaves out."""
    seconds: float
    run_id: str
    committed_at: str
    """ISO 8601, UTC."""


@dataclass(frozen=True, slots=True)
class RejectLine:
    """A file, record or chunk that was left out."""

    source_uri: str
    doc_id: str | None
    position: int | None
    reason: str
    detail: str
    chunk_index: int | None
    n_tokens: int | None
    text: str | None
    """The chunk's, where the recipe asks for it (``keep_rejected_texts``)."""
    run_id: str
    rejected_at: str
    """ISO 8601, UTC."""


def file_lines(recipe: Recipe, limit: int | None = None) -> list[FileLine]:
    """The newest ledger line of each file, sorted by URI, ``limit`` of them at most.

    Files whose rows left the table are no longer among them.
    """
    table = existing_table(recipe)
    present_keys: set[str] = set()
    rows = Counter[str]()
    for version in file_versions(table.open()):
        present_keys.add(version.file_key)
        rows[version.uri] += version.n_rows
    names = [field.name for field in fields(FileLine) if field.name != "rows"]
    entries = ledger.ledger_rows(ledger.open_ledger(table), ["file_key", *names])
    newest: dict[str, int] = {}  # the last in the ledger's order, whatever the clocks said
    shown = ("file_key", "source_uri", "embedded", "reused")
    lines = zip(*(entries.column(name).to_pylist() for name in shown), strict=True)
    for index, (key, uri, embedded, reused) in enumerate(lines):
        if key in present_keys or embedded + reused == 0:
            newest[uri] = index
    chosen = [newest[uri] for uri in sorted(newest)][:limit]
    return [
        FileLine(
            rows=rows[row["source_uri"]],
            committed_at=row.pop("committed_at").isoformat(timespec="seconds"),
            **row,
        )
        for row in entries.drop("file_key").take(pa.array(chosen, pa.int64())).to_pylist()
    ]


def reject_lines(recipe: Recipe, limit: int | None = None) -> list[RejectLine]:
    """Rows of the rejects table, ``limit`` of them at most."""
    rejects = ledger.reject_rows(existing_table(recipe), limit=limit).to_pylist()
    return [
        RejectLine(rejected_at=row.pop("rejected_at").isoformat(timespec="seconds"), **row)
        for row in rejects
    ]


def status(recipe: Recipe) -> Status:
    """Read the recipe's table and ledger. Raises ``LakeError`` when there is no table."""
    table = existing_table(recipe)
    snapshot, history = table.open(), ledger.open_ledger(table)
    identifier, space = snapshot.space()
    keys = {version.file_key for version in file_versions(snapshot)}
    return Status(
        table=table.uri,
        version=snapshot.version,
        recipe=snapshot.recipe_name(),
        rows=snapshot.n_rows,
        files=len(keys),
        fragments=len(snapshot.dataset.get_fragments()),
        space_id=identifier,
        space=asdict(space),
        spaces=columns(snapshot),
        retired=tuple(release for release in releases(snapshot) if release.action == "retire"),
        vector_index=stored_index(snapshot),
        unindexed_rows=unindexed_rows(snapshot.dataset),
        ledger=_sums(history, keys),
        rejects=ledger.rejects_by_reason(table),
        runs=_last_runs(history),
    )


def _sums(history: Snapshot | None, keys: set[str]) -> dict[str, int]:
    names = ["documents", "chunks", "embedded", "reused", "dropped", "failed", "tokens"]
    entries = ledger.ledger_rows(history, ["file_key", *names])
    is_current = pc.is_in(entries.column("file_key"), value_set=pa.array(keys, pa.string()))
    current = entries.filter(is_current)
    return {name: pc.sum(current.column(name)).as_py() or 0 for name in names}


def _last_runs(history: Snapshot | None) -> tuple[RunLine, ...]:
    summed_names = ["chunks", "tokens", "cost", *ledger.STAGE_COLUMNS]
    lines = ledger.ledger_rows(history, ["run_id", "committed_at", *summed_names])
    order = pa.array(range(lines.num_rows), pa.int64())  # the ledger's order, not that of a clock
    summed = (
        lines.append_column("place", order)
        .group_by("run_id")
        .aggregate(
            [("place", "max"), ("committed_at", "max"), ("run_id", "count"),
             *((name, "sum") for name in summed_names)]
        )
    )  # fmt: skip
    newest = sorted(summed.to_pylist(), key=lambda row: row["place_max"], reverse=True)
    return tuple(
        RunLine(
            run_id=row["run_id"],
            finished_at=row["committed_at_max"].isoformat(timespec="seconds"),
            files=row["run_id_count"],
            chunks=row["chunks_sum"],
            tokens=row["tokens_sum"],
            stages=ledger.stages_of(row, "_sum"),
            cost=row["cost_sum"],
        )
        for row in newest[:LAST_RUNS]
    )
