"""Work beside runs that is killed."""

from __future__ import annotations

import uuid

from embedding_core.recipe import ModelSpec
from embedding_core.runs.job import locked_for
from embedding_core.runs.maintenance import maintain
from embedding_core.runs.space.build import build_space
from experiments.faults.stage import LOCK_WAIT_SECONDS, RESOURCES, Stage, raise_if

OTHER_MODEL = ModelSpec(name="hashing", dim=48)


def build_other_space(stage: Stage) -> None:
    """Give every row a vector of ``OTHER_MODEL`` beside the one in service."""
    run_id = uuid.uuid4().hex
    with locked_for(stage.recipe, run_id, LOCK_WAIT_SECONDS, "build"):
        build_space(stage.recipe, OTHER_MODEL, RESOURCES, run_id)


def maintain_table(stage: Stage) -> None:
    """Maintain the table and all beside it."""
    raise_if(maintain(stage.recipe).problems)
