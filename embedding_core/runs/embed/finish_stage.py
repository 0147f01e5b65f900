"""The end of a run: indexes refreshed, the table verified, the ledger added up."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from embedding_core.lake.faults import tried_again
from embedding_core.lake.index.refresh import IndexPlan, refresh_indexes
from embedding_core.lake.index.vector import IndexReport
from embedding_core.lake.rows.verification import Verification, verify
from embedding_core.lake.snapshot import Snapshot
from embedding_core.reasons import CHANGED, NO_DOCUMENT
from embedding_core.records import EmbeddedUnit, FileCounts, ModelWork, Plan, StageSeconds
from embedding_core.runs.embed.commit_stage import replaced_keys
from embedding_core.runs.job import Job
from embedding_core.runs.maintenance import MaintenanceReport, maintain, needs_maintenance
from embedding_core.runs.outcome import Outcome
from embedding_core.runs.watched.run_record import record_idle_run
from embedding_core.watch.spans import span

TOTALS = (
    "documents", "chunks", "embedded", "reused", "dropped", "failed", "tokens", "duplicates",
    "left_out",
)  # fmt: skip
"""Counts of files that a run's report has as their sums."""
OF_CHUNKS = ("embedded", "reused", "dropped", "failed")
"""What becomes of chunks."""


@dataclass(slots=True)
class RunTally:
    """What the units of a run have given so far."""

    counts: list[FileCounts] = field(default_factory=list)
    rejected_files: int = 0
    replaced_keys: list[str] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    """Rejects by reason."""
    recomputed: int = 0
    stages: StageSeconds = field(default_factory=StageSeconds)
    model: ModelWork = field(default_factory=ModelWork)
    units: int = 0
    planned_units: int = 0
    """Units to be done, as far as they are known."""
    commits: int = 0
    changed_uris: set[str] = field(default_factory=set)
    """Files that changed while they were read."""
    failures: list[str] = field(default_factory=list)
    """One sentence per unit that could not be finished; its files are tried again next time."""

    def add(self, units: Sequence[EmbeddedUnit]) -> None:
        """Count units that have been committed."""
        for unit in units:
            self.counts.extend(unit.counts)
            self.rejected_files += len(unit.rejected_keys)
            self.reasons.update(unit.reasons)
            self.recomputed += unit.recomputed
            self.stages += unit.stages
            self.model += unit.model
            self.units += 1
            self.changed_uris |= {
                reject.source_uri for reject in unit.file_rejects if reject.reason == CHANGED.name
            }
        self.replaced_keys.extend(replaced_keys(units))

    def forget_changed(self, uris: Collection[str]) -> None:
        """Stop counting files, some of them of ``changed_uris``: they are worked on once more."""
        changed = self.changed_uris.intersection(uris)
        self.counts = [counts for counts in self.counts if counts.source_uri not in uris]
        self.rejected_files -= len(changed)
        self.reasons -= Counter({CHANGED.name: len(changed)})
        self.changed_uris -= changed

    def total(self, name: str) -> int:
        """Sum of one count over all files."""
        return sum(getattr(counts, name) for counts in self.counts)

    def figures(self) -> Mapping[str, Any]:
        """See ``run_record.Work``."""
        return {
            "units": max(self.planned_units, self.units),
            "units_done": self.units,
            "commits": self.commits,
            "tokens": self.total("tokens"),
            "chunks": {name: self.total(name) for name in OF_CHUNKS},
            "rejects": self.reasons.total(),
            "recomputed": self.recomputed,
            "halvings": self.model.halvings,
            "batch_fill": self.model.fill,
            "stages": self.stages,
        }


@dataclass(frozen=True, slots=True)
class RunReport:
    """What a run did, and whether it all adds up."""

    run_id: str
    """Empty where there was nothing to do, and so no run."""
    recipe: str
    table: str
    """URI of the table."""
    version: int | None
    """Version of the table that holds the run's changes; None when no table was made."""
    rows: int
    """Rows of the whole table."""
    added: int
    """Files; likewise the next five."""
    changed: int
    moved: int
    removed: int
    unchanged: int
    unreadable: int
    documents: int
    rejected: int
    """Bad records and whole files left out before chunking."""
    duplicates: int
    """Records left out because another document of the source has their text."""
    left_out: int
    """Records left out by the recipe's sample or limit, of files that this run worked on."""
    chunks: int
    embedded: int
    reused: int
    dropped: int
    failed: int
    tokens: int
    recomputed: int
    """Rows that half precision could not represent, computed again in a wider type."""
    seconds: float
    """Wall clock of the run, planning and verification included."""
    stages: StageSeconds
    """Where the time of its units went, all workers together."""
    cost: float | None
    """What that work costs; None without a price."""
    units: int
    """Work units; each waited ``stages.wait / units`` seconds for a worker."""
    commits: int
    batch_fill: float | None
    """How full the model's batches were, 1 at most; None when it made none."""
    halvings: int
    """Times that memory ran out and the model's batches became smaller."""
    tokens_per_second: float
    rejects: dict[str, int]
    """Rows of the rejects table that this run wrote, by reason."""
    failures: tuple[str, ...]
    index: IndexReport | None
    maintenance: MaintenanceReport | None
    """What maintenance did, when the run left too many small fragments."""
    verification: Verification
    outcome: Outcome
    """``done``, ``failed``, or ``rejected``: more rejects than the recipe tolerates."""


def finish(job: Job, planned: Plan, tally: RunTally, started: float) -> RunReport:
    """Refresh the indexes, verify what the run wrote, maintain the table if need be, add it all up.

    ``started`` is what ``time.perf_counter()`` said when the run began.
    """
    table = job.table
    snapshot = table.open_if_made()
    index, verification, maintenance = None, Verification(0, 0, ()), None
    if snapshot is not None:
        with span("index", run=job.run_id):
            index = _indexed(snapshot, IndexPlan.of(job.recipe))
        snapshot = snapshot.newest()
        with span("verify", run=job.run_id):
            old_keys = [*planned.removed_keys, *tally.replaced_keys]
            verification = _verified(snapshot, tally, old_keys)
        if verification.passed and needs_maintenance(job.recipe, snapshot):
            maintenance = maintain(job.recipe)
            snapshot = snapshot.newest()
    outcome = _outcome(job, planned, tally, verification)
    if planned.is_empty and snapshot is not None:
        record_idle_run(table, outcome)
    changes = Counter(file.change for file in planned.files)
    seconds = time.perf_counter() - started
    return RunReport(
        run_id=job.run_id,
        recipe=planned.recipe,
        table=table.uri,
        version=snapshot.version if snapshot is not None else None,
        rows=snapshot.n_rows if snapshot is not None else 0,
        added=changes["added"],
        changed=changes["changed"],
        moved=changes["moved"],
        removed=len(planned.removed_uris),
        unchanged=planned.unchanged,
        unreadable=len(planned.unreadable),
        rejected=tally.total("rejected") + len(planned.unreadable),
        **{name: tally.total(name) for name in TOTALS},
        recomputed=tally.recomputed,
        seconds=seconds,
        stages=tally.stages,
        cost=tally.stages.cost(job.price_per_hour),
        units=tally.units,
        commits=tally.commits,
        batch_fill=tally.model.fill,
        halvings=tally.model.halvings,
        tokens_per_second=tally.total("tokens") / seconds,
        rejects=dict(sorted((tally.reasons + _unreadable(planned)).items())),
        failures=(*tally.failures, *_why_nothing(planned, tally)),
        index=index,
        maintenance=maintenance,
        verification=verification,
        outcome=outcome,
    )


def _indexed(snapshot: Snapshot, plan: IndexPlan) -> IndexReport | None:
    """Refresh the indexes; try again when another run indexes the same rows."""
    indexing = f"index {snapshot.table.uri}"
    return tried_again(indexing, lambda attempt: refresh_indexes(snapshot.at(attempt), plan))


def _verified(snapshot: Snapshot, tally: RunTally, old_keys: Collection[str]) -> Verification:
    return tried_again(
        f"verify {snapshot.table.uri}",
        lambda attempt: verify(snapshot.at(attempt), tally.counts, old_keys),
    )


def _gave_nothing(planned: Plan, tally: RunTally) -> bool:
    """Whether everything that the run read was left out; files that cannot even be opened, and
    records that the recipe chose to leave out, count when there is no good file beside them."""
    left_out = sum(map(tally.total, ("rejected", "dropped", "failed")))
    if not planned.unchanged_uris:
        left_out += len(planned.unreadable) + tally.reasons[NO_DOCUMENT.name]
    usable = ("embedded", "reused", "duplicates", "left_out")
    return left_out > 0 and not any(map(tally.total, usable))


def _why_nothing(planned: Plan, tally: RunTally) -> list[str]:
    if not _gave_nothing(planned, tally):
        return []
    reasons = tally.reasons + _unreadable(planned)
    shown = ", ".join(f"{n:,} {reason}" for reason, n in reasons.most_common())
    return [
        f"nothing of what was read came into the table ({shown}); the list of rejects says why. "
        "Correct the recipe or the files, then run again"
    ]


def _unreadable(planned: Plan) -> Counter[str]:
    return Counter(reject.reason for reject in planned.unreadable)


def _outcome(job: Job, planned: Plan, tally: RunTally, verification: Verification) -> Outcome:
    if tally.failures or not verification.passed or _gave_nothing(planned, tally):
        return "failed"
    rejected = tally.total("rejected")
    records = sum(map(tally.total, ("documents", "duplicates", "left_out", "rejected")))
    left_out, chunks = tally.total("dropped") + tally.total("failed"), tally.total("chunks")
    tolerated = job.recipe.max_rejected_share
    too_many = (
        bool(tally.rejected_files or planned.unreadable)
        or rejected > tolerated * records
        or left_out > tolerated * chunks
    )
    return "rejected" if too_many else "done"
