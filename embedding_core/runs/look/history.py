"""What each run did, from the ledger: how much, how fast, and in which stage the time went."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from embedding_core.lake import ledger
from embedding_core.lake.table import Table
from embedding_core.records import StageSeconds

SUMMED = (
    "documents", "rejected", "chunks", "embedded", "reused", "tokens", "cost",
    *ledger.STAGE_COLUMNS,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class RunWork:
    """The files of a run as the ledger has them; a file that a later run did again is not in it."""

    run_id: str
    finished_at: str
    """ISO 8601, UTC: when the last file of the run was recorded."""
    files: int
    documents: int
    rejected: int
    chunks: int
    embedded: int
    reused: int
    tokens: int
    stages: StageSeconds
    """Where the time went, all workers together."""
    cost: float | None
    """What it cost at the price of that time; None where no price was known."""

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens per second of a worker; None where nothing took any time."""
        seconds = self.stages.of_workers
        return self.tokens / seconds if seconds else None

    def cost_at(self, price_per_hour: float | None) -> float | None:
        """What it cost; where no price was known then, at this one."""
        return self.stages.cost(price_per_hour) if self.cost is None else self.cost


def run_history(table: Table, most_runs: int) -> tuple[RunWork, ...]:
    """The last runs, oldest first; none before the first."""
    names = ["run_id", "committed_at", *SUMMED]
    lines = ledger.ledger_rows(ledger.open_ledger(table), names)
    order = pa.array(range(lines.num_rows), pa.int64())  # the ledger's order, not that of a clock
    summed = (
        lines.append_column("position", order)
        .group_by("run_id")
        .aggregate(
            [
                ("position", "max"),
                ("committed_at", "max"),
                ("run_id", "count"),
                *((name, "sum") for name in SUMMED),
            ]
        )
    )
    rows = sorted(summed.to_pylist(), key=lambda row: row["position_max"])
    return tuple(
        RunWork(
            run_id=row["run_id"],
            finished_at=row["committed_at_max"].isoformat(timespec="seconds"),
            files=row["run_id_count"],
            documents=row["documents_sum"],
            rejected=row["rejected_sum"],
            chunks=row["chunks_sum"],
            embedded=row["embedded_sum"],
            reused=row["reused_sum"],
            tokens=row["tokens_sum"],
            stages=ledger.stages_of(row, "_sum"),
            cost=row["cost_sum"],
        )
        for row in rows[-most_runs:]
    )
