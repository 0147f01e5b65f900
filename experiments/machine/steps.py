"""The steps that change a table: what each does, what refuses it, and what may be after it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from embedding_core.errors import EmbedlakeError, LakeError, SetupError, Unfilled
from embedding_core.recipe import Resources
from embedding_core.runs.embed.execution import InProcess
from experiments.machine import actions
from experiments.machine.model import Model, State
from experiments.machine.spaces import Spaces

Problem = type[EmbedlakeError] | None
"""The class of the error that refuses a step; None when the step must succeed."""
MANY_DAYS = 30


@dataclass(frozen=True, slots=True)
class Step:
    """One step."""

    action: Callable[[], None]
    problem: Problem
    after: Sequence[State]
    """What the table may be when the step is done, or was refused."""
    during: Sequence[State]
    """What it may be when the step was killed."""


def run(model: Model, resources: Resources, execution: InProcess | None = None) -> Step:
    """A run. A source without files is refused before there is a table."""
    action = partial(actions.embed, model.recipe, resources, execution)
    before, new = model.state, model.state._replace(spaces=Spaces())
    if not model.files and before.spaces is None:
        return Step(action, SetupError, [before], [before])
    if before.spaces is None:
        return Step(action, None, [new], [before, new])
    # A table without rows is made again as the recipe says, if there is anything to do.
    states = [before] if model.n_rows else [before, new]
    return Step(action, None, states, states)


def build(model: Model, dim: int) -> Step:
    """A build of a space. A table without rows has nothing to embed."""
    action = partial(actions.build, model.recipe, dim)
    problem = None if model.n_rows else LakeError
    return _change(model, action, problem, lambda: model.spaces.with_column(dim))


def promote(model: Model, dim: int) -> Step:
    """A promote of a space, which must be there and not in service, with a vector in every row."""
    action = partial(actions.switch_to, model.recipe, dim)
    problem: Problem = None
    if dim not in model.spaces.hidden_dims or not model.n_rows:
        problem = LakeError
    elif model.unfilled[dim]:
        problem = Unfilled
    return _change(model, action, problem, lambda: model.spaces.switched("promote", dim))


def roll_back(model: Model) -> Step:
    """A rollback; the space that served before must be there still."""
    action = partial(actions.roll_back, model.recipe)
    dim = model.spaces.before
    problem = None if dim is not None and model.n_rows else LakeError
    return _change(model, action, problem, lambda: model.spaces.switched("rollback", dim or 0))


def retire(model: Model, dim: int) -> Step:
    """A space is dropped, which must be there and not in service."""
    action = partial(actions.retire_space, model.recipe, dim)
    problem = None if dim in model.spaces.hidden_dims else LakeError
    return _change(model, action, problem, lambda: model.spaces.without(dim))


def maintain(model: Model, is_much_later: bool) -> Step:
    """Maintenance; after many days it retires the spaces that left service."""
    days = MANY_DAYS if is_much_later else 0
    action = partial(actions.maintain_table, model.recipe, days)
    stages = model.spaces.while_retiring() if is_much_later else [[model.spaces]]
    states = [[model.state._replace(spaces=spaces) for spaces in stage] for stage in stages]
    return Step(action, None, states[-1], [state for stage in states for state in stage])


def give_opinion(model: Model) -> Step:
    """Feedback is appended."""
    before = model.state
    after = before._replace(n_opinions=before.n_opinions + 1)
    action = partial(actions.give_opinion, model.recipe, before.n_opinions)
    return Step(action, None, [after], [before, after])


def _change(
    model: Model, action: Callable[[], None], problem: Problem, change: Callable[[], Spaces]
) -> Step:
    """A step that changes the spaces in one commit, unless it is refused."""
    before = model.state
    after = before if problem else before._replace(spaces=change())
    return Step(action, problem, [after], [before, after])
