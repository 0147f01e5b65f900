"""The steps of a re-embed run, from the sample to the switch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any, TypeVar

from prefect import get_run_logger
from prefect.client.schemas.objects import State
from prefect.tasks import Task

from embedding_core.errors import LakeError, Transient, Unfilled
from embedding_core.lake.lock import Lock
from embedding_core.plurals import counted
from embedding_core.quality.judgement import GateReport
from embedding_core.recipe import Recipe
from embedding_core.reports.picture import picture_uri
from embedding_core.reports.reembed import ReembedView
from embedding_core.runs.job import Job
from embedding_core.runs.space.build import add_space, fragments_to_fill
from embedding_core.runs.space.release import (
    Promotion,
    Reembedding,
    ReembedReport,
    column_of,
    index_space,
    is_begun,
    is_in_service,
    promote_space,
    record_refusal,
)
from embedding_core.runs.space.sample import choose_sample, forget_sample
from embedding_core.runs.watched.run_record import RunRecorder, recorded
from embedding_core.store.retry import CATCH_UPS
from embedding_core.watch.spans import current_span, span
from embedding_core.watch.subject import working_on
from embedlake import interrupts
from embedlake.execution.window import each, train_if_due
from embedlake.orchestration import tasks
from embedlake.orchestration.outcome import ended
from embedlake.orchestration.publishing import publish, publish_picture

BY = "reembed"
"""Who promoted or refused, in the table's releases."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class ReembedRun:
    """One run of a new model inside a flow, under the lock of a build."""

    def __init__(self, job: Job, promotion: Promotion, lock: Lock) -> None:
        self._job, self._promotion, self._lock = job, promotion, lock
        self._so_far = Reembedding(job)
        self._recorder: RunRecorder

    @interrupts.not_mistaken()
    def to_the_end(self, sample_share: float | None) -> ReembedReport:
        """Every step that is left to do."""
        job = self._job
        about = {"run": job.run_id, "recipe": job.recipe.name, "table": job.table.name}
        with working_on(job.run_id), span("reembed", **about):
            self._job = replace(job, trace=current_span())
            with recorded(
                job.table, job.run_id, self._so_far, job.price_per_hour, kind="build"
            ) as self._recorder:
                report = self._every_step(sample_share)
                self._recorder.end(self._so_far, report.run_outcome)
                return report

    def _every_step(self, sample_share: float | None) -> ReembedReport:
        so_far = self._so_far
        # 1. A space in service may lack rows after a rollback that did not wait for them.
        if is_in_service(self._job):
            self._fill()
            return so_far.report("failed" if so_far.is_incomplete() else "in service already")
        # 2. A sample says no before everything is embedded.
        if sample_share is not None and not is_begun(self._job):
            so_far.sample = self._judged_sample(sample_share)
            if self._refuses(so_far.sample):
                return so_far.report("refused")
        # 3. A vector for every row.
        add_space(self._job, self._lock.check)
        self._fill()
        if so_far.is_incomplete():
            return so_far.report("failed")
        # 4. The gate looks at the whole table.
        so_far.gate = self._caught_up(self._judged)
        if self._refuses(so_far.gate):
            return so_far.report("refused")
        # 5. The switch.
        if self._promotion == "never":
            return so_far.report("built")
        check = self._lock.check
        release = self._caught_up(lambda: promote_space(self._job, BY, so_far.gate, check))
        return so_far.report("promoted", release)

    def _refuses(self, gate: GateReport) -> bool:
        """Whether the gate's verdict ends the run; the table's history keeps it then."""
        if gate.verdict == "yes" or self._promotion == "force":
            return False
        record_refusal(self._job, BY, gate)
        return True

    def _judged_sample(self, share: float) -> GateReport:
        parts = choose_sample(self._job, share)
        try:
            self._so_far.sampled = self._all(tasks.sample, parts)
            (judged,) = self._all(tasks.judge_sample, [tuple(self._so_far.sampled)])
        finally:
            forget_sample(self._job)
        return judged

    def _fill(self) -> None:
        """Fill rows that lack vectors, and rows that arrive meanwhile, each fragment once."""
        so_far = self._so_far
        while todo := fragments_to_fill(self._job, so_far.filled_ids):
            self._lock.check()
            get_run_logger().info("%s of fragments to fill", counted(len(todo), "group"))
            failed_before = len(so_far.failures)
            so_far.n_fragments = len(so_far.filled) + sum(map(len, todo))
            for fragments in self._each(tasks.backfill, todo):
                so_far.filled += fragments
                self._recorder.progress(so_far)
            if len(so_far.failures) > failed_before:
                return  # the next run goes on there

    def _judged(self) -> GateReport:
        train_if_due(self._job)
        self._so_far.index = index_space(self._job)
        (judged,) = self._all(tasks.gate, [column_of(self._job)])
        return judged

    def _caught_up(self, step: Callable[[], Result]) -> Result:
        """A step that needs a vector in every row; rows that came since are filled first."""
        for _ in range(CATCH_UPS):
            self._lock.check()
            try:
                return step()
            except Unfilled:
                n_filled = len(self._so_far.filled)
                self._fill()
                if len(self._so_far.filled) == n_filled:
                    raise
        raise LakeError(
            f"rows arrived faster than they could be embedded, {CATCH_UPS} times in a row; "
            "nothing was switched: run the same command again when less is being written"
        )

    def _all(self, task: Task[Any, Result], items: Iterable[Item]) -> list[Result]:
        """``_each``; every result is needed."""
        results = list(self._each(task, items))
        if self._so_far.failures:
            raise Transient("; ".join(self._so_far.failures))
        return results

    def _each(self, task: Task[Any, Result], items: Iterable[Item]) -> Iterator[Result]:
        return each(task, self._job, items, self._so_far.failures)


def published(report: ReembedReport, recipe: Recipe) -> dict[str, Any] | State[dict[str, Any]]:
    """Show the report in the log and as artifacts; what the flow returns."""
    view = ReembedView(report)
    publish("reembed-report", recipe, view)
    if (judged := report.gate or report.sample) is not None:
        publish_picture("reembed-gate", recipe, picture_uri(judged))
    return ended(view)
