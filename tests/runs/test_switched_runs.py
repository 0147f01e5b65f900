"""A promote between the steps of a run that follows the model in service."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from embedding_core.errors import Switched
from embedding_core.identity import space_id
from embedding_core.lake.spaces.switching import promote
from embedding_core.lake.table import table_of
from embedding_core.recipe import ModelSpec, Recipe, Resources
from embedding_core.records import Plan, WorkUnit
from embedding_core.runs.embed.execution import InProcess
from embedding_core.runs.embed.planning import plan
from embedding_core.runs.embed.run import EmbedRun
from embedding_core.runs.job import Job
from embedding_core.runs.serving import following
from embedding_core.runs.space.build import build_space
from tests.driver import recipe_for, run, write_jsonl


def switch(recipe: Recipe, dim: int) -> None:
    """Put another space in service."""
    built = build_space(recipe, ModelSpec(name="hashing", dim=dim), Resources(), "build")
    promote(table_of(recipe), built.column, "me")


def begun(folder: Path, follow: bool = True) -> Recipe:
    """A recipe whose table has a file, and whose source has one more."""
    write_jsonl(folder, "a.jsonl", {"one": "words"})
    recipe = recipe_for(folder, release={"follow": follow})
    run(recipe)
    write_jsonl(folder, "b.jsonl", {"two": "more words"})
    return recipe


class PromotesWhenPlanned(InProcess):
    """Another space comes into service each time that a plan was shown, as long as there is one."""

    def __init__(self, *dims: int) -> None:
        self._dims = list(dims)
        self.spaces: list[str] = []
        """Spaces of the jobs that were shown."""

    def planned(self, job: Job, planned: Plan) -> Plan:
        """See ``Execution``."""
        self.spaces.append(job.space_id)
        if self._dims:
            switch(job.recipe, self._dims.pop(0))
        return planned


class PromotesAtWork(InProcess):
    """Another space comes into service when the units are known."""

    def runner(self, job: Job, planned: Plan, units: Sequence[WorkUnit]) -> InProcess:
        """See ``Execution``."""
        switch(job.recipe, 16)
        return super().runner(job, planned, units)


def run_with(execution: InProcess, recipe: Recipe) -> int:
    """Run the recipe; how many rows the table has."""
    report = EmbedRun(recipe, Resources(), execution, "run").to_the_end(time.perf_counter())
    assert report.outcome == "done"
    return report.rows


def test_promote_before_a_run_plans_makes_it_go_with_the_new_space(tmp_path: Path) -> None:
    recipe = begun(tmp_path)
    seen = following(recipe)  # with the model that serves when the run begins
    switch(recipe, 16)
    assert run_with(InProcess(), seen) == 2
    assert table_of(recipe).space()[1].dim == 16 and plan(recipe).is_empty


@pytest.mark.parametrize("dims", [(16,), (16, 8)], ids=["before-the-lock", "under-the-lock-too"])
def test_promote_after_a_run_planned_makes_it_plan_again(
    tmp_path: Path, dims: tuple[int, ...]
) -> None:
    recipe, execution = begun(tmp_path), PromotesWhenPlanned(*dims)
    assert run_with(execution, recipe) == 2
    serving = table_of(recipe).space()
    assert serving[1].dim == dims[-1] and serving[0] == execution.spaces[-1]
    assert len(execution.spaces) == 1 + len(dims)
    assert plan(recipe).is_empty


def test_promote_while_units_are_worked_on_says_so_and_the_next_run_goes_on(
    tmp_path: Path,
) -> None:
    recipe = begun(tmp_path)
    old = space_id(table_of(recipe).space()[1])
    with pytest.raises(Switched, match=rf"made in space {old[:12]}.*run the same command again"):
        run_with(PromotesAtWork(), recipe)
    assert run_with(InProcess(), recipe) == 2


def test_promote_of_a_space_that_a_recipe_does_not_follow_is_no_reason_to_plan_again(
    tmp_path: Path,
) -> None:
    recipe, execution = begun(tmp_path, follow=False), PromotesWhenPlanned(16)
    with pytest.raises(Exception, match="stay with the model in service"):
        run_with(execution, recipe)
    assert len(execution.spaces) == 1
