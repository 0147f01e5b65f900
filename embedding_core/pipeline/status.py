"""What a recipe's table holds and how it came to that."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from embedding_core.lake import Lake, Table, ledger
from embedding_core.lake.indexing import unindexed_rows
from embedding_core.recipe import Recipe

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
    unindexed_rows: dict[str, int]
    """Rows that an index does not cover yet, by the index's name."""
    ledger: dict[str, int]
    """Sums over the file versions that have rows now."""
    rejects: dict[str, int]
    """Rows of the rejects table by reason."""
    runs: tuple[RunLine, ...]
    """The last runs, newest first."""


def status(recipe: Recipe) -> Status:
    """Read the recipe's table and ledger. Raises ``LakeError`` when there is no table."""
    table = Lake.open(recipe.lake.uri, recipe.lake.storage).table(recipe.lake.table)
    dataset = table.dataset()
    held, space = table.space()
    keys = {version.file_key for version in table.file_versions()}
    return Status(
        table=table.uri,
        version=int(dataset.version),
        recipe=table.recipe_name(),
        rows=dataset.count_rows(),
        files=len(keys),
        fragments=len(dataset.get_fragments()),
        space_id=held,
        space=asdict(space),
        unindexed_rows=unindexed_rows(dataset),
        ledger=_sums(table, keys),
        rejects=dict(Counter(ledger.reject_rows(table).column("reason").to_pylist())),
        runs=_last_runs(table),
    )


def _sums(table: Table, keys: set[str]) -> dict[str, int]:
    names = ["documents", "chunks", "embedded", "reused", "dropped", "failed", "tokens"]
    rows = ledger.ledger_rows(table, ["file_key", *names]).to_pylist()
    current = [row for row in rows if row["file_key"] in keys]
    return {name: sum(row[name] for row in current) for name in names}


def _last_runs(table: Table) -> tuple[RunLine, ...]:
    columns = ["run_id", "committed_at", "chunks", "tokens"]
    runs = ledger.ledger_rows(table, columns).group_by("run_id")
    summed = runs.aggregate(
        [("committed_at", "max"), ("run_id", "count"), ("chunks", "sum"), ("tokens", "sum")]
    )
    newest = sorted(summed.to_pylist(), key=lambda row: row["committed_at_max"], reverse=True)
    return tuple(
        RunLine(
            run_id=row["run_id"],
            finished_at=row["committed_at_max"].isoformat(timespec="seconds"),
            files=row["run_id_count"],
            chunks=row["chunks_sum"],
            tokens=row["tokens_sum"],
        )
        for row in newest[:LAST_RUNS]
    )
