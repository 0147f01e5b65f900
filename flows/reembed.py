"""The reembed flow: a new model beside the one in service, tested against it, then switched.

Judge a sample, fill the new column fragment by fragment on Ray, catch up with rows that arrive
meanwhile, index, judge the whole, promote in one commit. A run that was cut off anywhere is gone on
with by the next one: what is done is what the table holds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from prefect import flow, get_run_logger
from prefect.artifacts import create_image_artifact, create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed
from prefect.tasks import Task

from embedding_core.errors import EmbedlakeError, LakeError, Transient, Unfilled
from embedding_core.lake.index.vector import IndexReport
from embedding_core.lake.lock import Lock
from embedding_core.lake.spaces.switching import Release
from embedding_core.recipe import Recipe
from embedding_core.reports import reembed as words
from embedding_core.reports.gate import picture_uri
from embedding_core.runs.job import Job, locked_for_build
from embedding_core.runs.space.build import (
    FilledFragment,
    add_space,
    fragments_to_fill,
    space_job,
    space_report,
)
from embedding_core.runs.space.judgement import GateReport
from embedding_core.runs.space.release import (
    Outcome,
    Promotion,
    ReembedReport,
    column_of,
    has_left,
    index_space,
    is_begun,
    is_in_service,
    missing_vectors,
    promote_space,
    table_uri,
)
from embedding_core.runs.space.sample import SampledPart, choose_sample, forget_sample
from embedlake.cli import interrupts
from embedlake.execution.runner import Runner, current_runner
from embedlake.execution.training import train_if_due
from embedlake.execution.window import each
from embedlake.orchestration import events, tasks
from embedlake.orchestration.naming import artifact_key, run_name
from embedlake.orchestration.outcome import failed
from embedlake.orchestration.parameters import fail_for_parameters
from embedlake.settings import read_settings

BY = "reembed"
"""Who promoted, in the table's releases."""
MOST_CATCH_UPS = 20
"""Times that rows may arrive between the last look and the gate, or the switch."""

Found = TypeVar("Found")


class ReembedFailed(EmbedlakeError):
    """The run ended and the new space is not complete; what is filled stays."""

    def __init__(self, report: ReembedReport) -> None:
        super().__init__(words.reembed_summary(report))
        self.report = report

    def __reduce__(self) -> tuple[type[ReembedFailed], tuple[ReembedReport]]:
        return ReembedFailed, (self.report,)


@flow(
    name="reembed",
    description="Embed a table anew with another model, test it against the old, switch.",
    flow_run_name=run_name,
    task_runner=Runner(),
    validate_parameters=False,
    on_crashed=[fail_for_parameters],
)
def reembed(
    recipe: str | dict[str, Any],
    model: str | dict[str, Any] | None = None,
    promote: Promotion = "auto",
    sample: float | None = None,
    resources: dict[str, Any] | None = None,
    announced: str | None = None,
) -> dict[str, Any] | State[dict[str, Any]]:
    """Give a recipe's table the vectors of another model.

    A deployment's run ends as ``Superseded`` when another was asked for after it, and a schedule's
    run as ``Left`` when the model has left service: it does not undo what was done since.

    Args:
        recipe: path or URI of a recipe file, or the recipe itself.
        model: name of the new model, or a whole model section; default: the recipe's.
        promote: ``auto`` when the gate says yes, ``force`` whatever it says, ``never``.
        sample: share of the rows to embed and judge first; a no there ends the run.
        resources: settings that only change speed, over those of the environment.
        announced: when the event was sent that asked for the run, ISO 8601: the last one counts.
    """
    run_id = str(flow_run.get_id())
    mine = events.own_run(run_id)
    if (later := events.superseded_by(mine)) is not None:
        why = f"flow run {later.name} ({later.id}) was asked for later"
        return Completed(name="Superseded", message=why)
    try:
        settings = read_settings()
        wanted = Recipe.load(recipe).with_model(model)
        chosen = settings.resources.updated(resources or {})
        job = space_job(wanted, wanted.model, chosen, run_id)
        if mine.auto_scheduled and has_left(job):
            why = f"{wanted.model.name} was in service or retired; schedules do not bring it back"
            return Completed(name="Left", message=why)
        current_runner().prepare(settings, chosen)
        with locked_for_build(wanted, job.run_id, settings.lock_wait_seconds) as lock:
            report = _Run(job, promote, lock).to_the_end(sample)
    except EmbedlakeError as error:
        return failed(error)
    return _ended(report, wanted)


class _Run:
    """The steps of one run and what they have found so far."""

    def __init__(self, job: Job, promotion: Promotion, lock: Lock) -> None:
        self._job, self._promotion, self._lock = job, promotion, lock
        self._started = time.perf_counter()
        self._done: list[FilledFragment] = []
        self._failures: list[str] = []
        self._sampled: list[SampledPart] = []
        self._sample: GateReport | None = None
        self._gate: GateReport | None = None
        self._index: IndexReport | None = None

    @interrupts.not_mistaken()
    def to_the_end(self, share: float | None) -> ReembedReport:
        """Every step that is left to do."""
        if is_in_service(self._job):
            self._fill()  # after a rollback that did not wait for newer rows
            return self._report("failed" if self._incomplete() else "in service already")
        if share is not None and not is_begun(self._job):
            self._sample = self._judged_sample(share)
            if self._sample.verdict == "no" and self._promotion != "force":
                return self._report("refused")
        add_space(self._job)
        self._fill()
        if self._incomplete():
            return self._report("failed")
        self._gate = self._caught_up(self._judged)
        if self._promotion != "force" and self._gate.verdict == "no":
            return self._report("refused")
        if self._promotion == "never":
            return self._report("built")
        return self._report("promoted", self._caught_up(self._promoted))

    def _judged_sample(self, share: float) -> GateReport:
        parts = choose_sample(self._job, share)
        try:
            self._sampled = self._all(tasks.sample, parts)
            (judged,) = self._all(tasks.judge_sample, [tuple(self._sampled)])
        finally:
            forget_sample(self._job)
        return judged

    def _fill(self) -> None:
        """Fill what lacks vectors, and what arrives meanwhile, each fragment once."""
        while todo := fragments_to_fill(self._job, {one.fragment_id for one in self._done}):
            self._lock.check()
            get_run_logger().info("%d groups of fragments to fill", len(todo))
            failed_before = len(self._failures)
            for done in self._each(tasks.backfill, todo):
                self._done += done
            if len(self._failures) > failed_before:
                return  # the next run goes on there

    def _incomplete(self) -> bool:
        return bool(self._failures) or missing_vectors(self._job) > 0

    def _judged(self) -> GateReport:
        train_if_due(self._job)
        self._index = index_space(self._job)
        (judged,) = self._all(tasks.gate, [column_of(self._job)])
        return judged

    def _promoted(self) -> Release:
        return promote_space(self._job, BY)

    def _caught_up(self, step: Callable[[], Found]) -> Found:
        """A step that needs a vector in every row; rows that came since are filled first."""
        for _ in range(MOST_CATCH_UPS):
            self._lock.check()
            try:
                return step()
            except Unfilled:
                n_done = len(self._done)
                self._fill()
                if len(self._done) == n_done:
                    raise
        raise LakeError(
            f"rows arrived faster than they could be embedded, {MOST_CATCH_UPS} times in a row; "
            "nothing was switched: run the same command again when less is being written"
        )

    def _all(self, task: Task[Any, Found], given: Iterable[Any]) -> list[Found]:
        """``_each``, and all of them are needed."""
        found = list(self._each(task, given))
        if self._failures:
            raise Transient("; ".join(self._failures))
        return found

    def _each(self, task: Task[Any, Found], given: Iterable[Any]) -> Iterator[Found]:
        return each(task, self._job, given, self._failures)

    def _report(self, outcome: Outcome, release: Release | None = None) -> ReembedReport:
        job = self._job
        begun = is_begun(job)
        return ReembedReport(
            run_id=job.run_id,
            recipe=job.recipe.name,
            table=table_uri(job),
            model=job.recipe.model.name,
            outcome=outcome,
            space_id=job.space_id,
            column=column_of(job) if begun else None,
            sampled_rows=sum(one.rows for one in self._sampled),
            sampled_tokens=sum(one.tokens for one in self._sampled),
            sample=self._sample,
            space=space_report(job, self._done, self._started) if begun else None,
            gate=self._gate,
            index=self._index,
            release=release,
            failures=tuple(self._failures),
            seconds=time.perf_counter() - self._started,
        )


def _ended(report: ReembedReport, recipe: Recipe) -> dict[str, Any] | State[dict[str, Any]]:
    for line in words.reembed_lines(report):
        get_run_logger().info(line)
    key = artifact_key("reembed-report", recipe)
    create_markdown_artifact(markdown=words.reembed_markdown(report), key=key)
    if (judged := report.gate or report.sample) is not None:
        create_image_artifact(
            image_url=picture_uri(judged), key=artifact_key("reembed-gate", recipe)
        )
    if report.outcome == "failed":
        return failed(ReembedFailed(report))
    data, summary = words.reembed_data(report), words.reembed_summary(report)
    if report.outcome == "refused":
        return Completed(name="Refused", message=summary, data=data)
    return data
