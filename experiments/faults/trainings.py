"""The training of a vector index is stopped at a change of a file, and its column changes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from embedding_core.lake import schema
from embedding_core.lake.index.vector import refresh_vector_index
from embedding_core.lake.spaces.switching import promote, retire
from embedding_core.lake.table import table_of
from embedding_core.recipe import IndexSpec, ModelSpec
from embedding_core.runs.maintenance import maintain
from embedding_core.runs.space.build import build_space
from experiments.faults.child import Child, in_child
from experiments.faults.injections import Experiment, Point, Tally, numbered
from experiments.faults.shim import Fault
from experiments.faults.stage import RESOURCES, Stage, raise_if

OTHER_MODEL = ModelSpec(name="hashing", dim=48)
INDEX = IndexSpec(min_rows=300, target_recall=0.8)
DOCUMENTS, FILES = 40, 6


def trainings(folder: Path) -> Experiment:
    """While a column's index is trained the column is retired, or switched and then retired."""
    stage = _stage_with_two_spaces(folder)
    kinds = {
        "retire": (_training(stage, in_service=False), partial(_retire, stage)),
        "promote and retire": (
            _training(stage, in_service=True),
            partial(_promote_and_retire, stage),
        ),
    }

    def inject(point: Point, tally: Tally) -> None:
        train, change_spaces = kinds[point.kind]
        stage.put_back()
        training = Child(stage.hit(Fault.STOP, point.number, train))
        if not training.wait_for_stop():
            training.ending()
            tally.counts["ended before the change"] += 1
            return
        tally.expect("the change of spaces", in_child(change_spaces))
        training.wake()
        tally.injected(training.ending())
        tally.expect("readers", in_child(stage.check))
        tally.expect("the next run", in_child(partial(_run_and_maintain, stage)))

    return Experiment(
        injects="the training of a vector index is stopped at a change of a file, its column is "
        "retired, or switched and retired; then it wakes",
        must_hold="filters work; so do the next run and maintenance",
        stage=stage,
        points=[
            point
            for kind, (train, _) in kinds.items()
            for point in numbered(kind, stage.n_changes(Fault.STOP, train))
        ],
        inject=inject,
    )


def _stage_with_two_spaces(folder: Path) -> Stage:
    stage = Stage(folder, seed=2, release={"follow": True})
    for number in range(FILES):
        stage.world.write(f"f{number}.jsonl", DOCUMENTS)

    def make() -> None:
        stage.run_and_check()
        build_space(stage.recipe, OTHER_MODEL, RESOURCES, "build")

    stage.prepare(make)
    stage.recipe = stage.recipe.model_copy(update={"index": INDEX})
    stage.save()
    return stage


def _training(stage: Stage, in_service: bool) -> Callable[[], None]:
    """Trains the index of the column in service, or of the other one."""

    def train() -> None:
        column = schema.VECTOR if in_service else _hidden(stage)
        refresh_vector_index(table_of(stage.recipe), INDEX, column=column)

    return train


def _retire(stage: Stage) -> None:
    retire(table_of(stage.recipe), _hidden(stage), "the experiment")


def _promote_and_retire(stage: Stage) -> None:
    promote(table_of(stage.recipe), _hidden(stage), "the experiment")
    _retire(stage)


def _hidden(stage: Stage) -> str:
    """The column that is not in service."""
    fields = table_of(stage.recipe).dataset().schema
    return next(str(field.name) for field in fields if schema.is_hidden(field))


def _run_and_maintain(stage: Stage) -> None:
    stage.run_and_check()
    raise_if(maintain(stage.recipe).problems)
    stage.check()
