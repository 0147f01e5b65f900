"""The steps of a model change, and its report."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from embedding_core.lake.disk.flushing import INDEX_ROOMS, flushed
from embedding_core.lake.faults import tried_again
from embedding_core.lake.index.vector import IndexReport, refresh_vector_index, training_is_due
from embedding_core.lake.ownership.owner import open_owned
from embedding_core.lake.spaces.bridges import forget_bridges
from embedding_core.lake.spaces.switching import (
    GateAnswer,
    Release,
    column_before,
    promote,
    refuse,
    releases,
    rollback,
)
from embedding_core.lake.spaces.vector_columns import expect, field_of, missing_rows
from embedding_core.quality.judgement import GateReport
from embedding_core.recipe import Recipe, Resources
from embedding_core.records import StageSeconds
from embedding_core.runs.job import Job
from embedding_core.runs.outcome import Outcome as RunOutcome
from embedding_core.runs.serving import stored_model
from embedding_core.runs.space.build import FilledFragment, SpaceReport, build_space, space_report
from embedding_core.runs.space.sample import SampledPart
from embedding_core.watch.spans import span
from embedding_core.watch.subject import working_on

Promotion = Literal["auto", "never", "force"]
"""``auto``: promote when the gate says yes; ``force``: whatever it says; ``never``: build only."""
Outcome = Literal["in service already", "promoted", "built", "refused", "failed"]


@dataclass(frozen=True, slots=True)
class ReembedReport:
    """What became of a new model."""

    run_id: str
    recipe: str
    table: str
    """URI of the table."""
    model: str
    outcome: Outcome
    """``built``: every row has a vector, nothing was put in service."""
    space_id: str
    column: str | None
    """The column of its vectors; None when a sample was enough to refuse it."""
    sampled_rows: int
    """Rows embedded to judge a sample; 0 without one."""
    sampled_tokens: int
    sample: GateReport | None
    space: SpaceReport | None
    gate: GateReport | None
    index: IndexReport | None
    release: Release | None
    failures: tuple[str, ...]
    """One sentence per group of fragments that could not be filled; the next run goes on there."""
    seconds: float

    @property
    def run_outcome(self) -> RunOutcome:
        """How the run ended, in the words of every run."""
        if self.outcome == "refused" or self.outcome == "failed":
            return self.outcome
        return "done"


@dataclass(slots=True)
class Reembedding:
    """What a run for a new model did so far."""

    job: Job
    started: float = field(default_factory=time.perf_counter)
    filled: list[FilledFragment] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    n_fragments: int = 0
    """Fragments to be filled, as far as they are known."""
    sampled: list[SampledPart] = field(default_factory=list)
    sample: GateReport | None = None
    gate: GateReport | None = None
    index: IndexReport | None = None

    @property
    def filled_ids(self) -> set[int]:
        """Fragments that were worked on."""
        return {fragment.fragment_id for fragment in self.filled}

    def figures(self) -> Mapping[str, Any]:
        """See ``run_record.Work``. A fragment is a commit."""
        return {
            "units": max(self.n_fragments, len(self.filled)),
            "units_done": len(self.filled),
            "commits": len(self.filled),
            "tokens": sum(fragment.tokens for fragment in self.filled),
            "chunks": {
                "embedded": sum(fragment.rows for fragment in self.filled),
                "failed": sum(fragment.missing_rows for fragment in self.filled),
            },
            "rejects": sum(fragment.missing_rows + fragment.truncated for fragment in self.filled),
            "stages": sum((fragment.stages for fragment in self.filled), StageSeconds()),
        }

    def is_incomplete(self) -> bool:
        """Whether rows lack a vector, or work on them failed."""
        return bool(self.failures or missing_rows(self.job.table.dataset(), self.job.space_id))

    def report(self, outcome: Outcome, release: Release | None = None) -> ReembedReport:
        """The report of a run that ends now."""
        job = self.job
        begun = is_begun(job)
        return ReembedReport(
            run_id=job.run_id,
            recipe=job.recipe.name,
            table=job.table.uri,
            model=job.recipe.model.name,
            outcome=outcome,
            space_id=job.space_id,
            column=column_of(job) if begun else None,
            sampled_rows=sum(sampled.rows for sampled in self.sampled),
            sampled_tokens=sum(sampled.tokens for sampled in self.sampled),
            sample=self.sample,
            space=space_report(job, self.filled, self.started) if begun else None,
            gate=self.gate,
            index=self.index,
            release=release,
            failures=tuple(self.failures),
            seconds=time.perf_counter() - self.started,
        )


def is_in_service(job: Job) -> bool:
    """Whether queries are answered by the job's space already."""
    return bool(job.table.space()[0] == job.space_id)


def has_left(job: Job) -> bool:
    """Whether the job's space left service and is not back, by the changes that the table
    remembers."""
    changes = releases(job.table.open())
    return not is_in_service(job) and any(change.from_space == job.space_id for change in changes)


def is_begun(job: Job) -> bool:
    """Whether the table has a column of the job's space, however full."""
    return field_of(job.table.dataset(), job.space_id) is not None


def index_space(job: Job) -> IndexReport | None:
    """Build or extend the index of the job's space; None while the table is too small for one."""
    table = job.table

    def refresh(_attempt: int) -> IndexReport | None:
        with flushed(table.uri, *INDEX_ROOMS):
            return refresh_vector_index(table, job.recipe.index, column=column_of(job))

    with working_on(job.run_id), span("index", job.trace, run=job.run_id):
        return tried_again(f"index {table.uri}", refresh)


def index_is_due(job: Job) -> bool:
    """Whether ``index_space`` would train the index, which takes minutes and gigabytes."""
    table = job.table

    def look(_attempt: int) -> bool:
        return training_is_due(table.open(), job.recipe.index, column_of(job))

    return tried_again(f"look at the index of {table.uri}", look)


def column_of(job: Job) -> str:
    """What the column of the job's space is called now. Raises ``LakeError`` when it is gone."""
    return str(expect(job.table.dataset(), job.space_id).name)


def promote_space(
    job: Job, by: str, gate: GateReport | None, check: Callable[[], None] = lambda: None
) -> Release:
    """Put the job's space in service; errors as ``lake.promote``. ``gate``: what was found of it.
    ``check``: see there. Bridges to the space before it have done their work.

    Waits for the training of another index however long: the work is done, only the switch is left.
    """
    table, answer = job.table, None if gate is None else _answer(gate)
    release = promote(table, column_of(job), by, job.run_id, math.inf, answer, check)
    forget_bridges(table)
    return release


def record_refusal(job: Job, by: str, gate: GateReport) -> Release:
    """Keep in the table's history that the gate refused the job's space, and why."""
    refused = (job.space_id, job.recipe.model.name)
    return refuse(job.table, refused, by, job.run_id, _answer(gate))


def _answer(gate: GateReport) -> GateAnswer:
    ndcg = gate.metrics["ndcg@10"]
    return GateAnswer(
        verdict=gate.verdict,
        queries=gate.queries,
        queries_kind=gate.queries_kind,
        sampled_share=gate.sampled_share,
        old_ndcg=ndcg.old.mean,
        new_ndcg=ndcg.new.mean,
        difference=ndcg.difference.mean,
        low=ndcg.difference.low,
        high=ndcg.difference.high,
        failed={
            finding.name: finding.sentence
            for finding in gate.findings
            if finding.outcome == "failed"
        },
    )


def go_back(
    recipe: Recipe, resources: Resources, by: str, now: bool = False, wait_seconds: float = math.inf
) -> Release:
    """Put the space back in service that was there before; rows that came since are embedded in it.

    They are embedded first, so that no search misses them, or with ``now`` right after the switch.
    Raises ``LakeError`` when there is nothing to go back to, ``Locked`` when the training of an
    index goes on for longer than ``wait_seconds``.
    """
    snapshot = open_owned(recipe)
    model = stored_model(snapshot, column_before(snapshot), recipe.model)
    if not now:
        build_space(recipe, model, resources, "rollback")
    release = rollback(snapshot.table, by, now=now, wait_seconds=wait_seconds)
    if now:
        build_space(recipe, model, resources, "rollback")
    return release
