"""A change of the model and what follows is killed at a change of a file, and then goes on."""

from __future__ import annotations

from pathlib import Path

from embedding_core.lake import schema
from embedding_core.lake.spaces.switching import promote, releases, retire, rollback
from embedding_core.lake.table import table_of
from experiments.faults.child import in_child
from experiments.faults.injections import Experiment, Point, Tally, numbered
from experiments.faults.kills.work import build_other_space, maintain_table
from experiments.faults.shim import Fault
from experiments.faults.stage import Stage, Wrong

FILES = 4
BY = "the experiment"


def kills_of_releases(folder: Path) -> Experiment:
    """Kill whoever builds a space, promotes it, rolls back, retires it and maintains the table."""
    stage = Stage(folder, seed=2, release={"follow": True})
    for number in range(FILES):
        stage.world.write(f"f{number}.jsonl")
    stage.prepare_long_ago(stage.run_and_check)
    stage.world.write("f0.jsonl")
    stage.prepare_long_ago(stage.run_and_check)
    stage.save()

    def release() -> None:
        change_models_and_back(stage)

    def inject(point: Point, tally: Tally) -> None:
        stage.put_back()
        tally.injected(in_child(stage.hit(Fault[point.kind], point.number, release)))
        tally.expect("readers", in_child(stage.check))
        tally.expect("the rest of the work", in_child(release))
        tally.expect("the table", in_child(lambda: _check_end(stage)))

    return Experiment(
        injects="whoever builds a space, promotes it, rolls back, retires it and maintains the "
        "table is killed before a change of a file, or amid it",
        must_hold="every row has its vector in the space in service, at once; the rest of the work "
        "can be done",
        stage=stage,
        points=[
            point
            for fault in (Fault.KILL_BEFORE, Fault.KILL_AMID)
            for point in numbered(fault.name, stage.n_changes(fault, release))
        ],
        inject=inject,
    )


def change_models_and_back(stage: Stage) -> None:
    """Do what the table's releases say is not done yet."""
    table = table_of(stage.recipe)
    done = {release.action for release in releases(table.open())}
    if "promote" not in done:
        build_other_space(stage)
        promote(table, _hidden(stage), BY)
    if "rollback" not in done:
        rollback(table, BY)
    if "retire" not in done:
        retire(table, _hidden(stage), BY)
    maintain_table(stage)


def _check_end(stage: Stage) -> None:
    stage.check_done()
    if columns := _hidden_columns(stage):
        raise Wrong(f"{columns} are there")


def _hidden(stage: Stage) -> str:
    (column,) = _hidden_columns(stage)
    return column


def _hidden_columns(stage: Stage) -> list[str]:
    """Vector columns that are not in service."""
    fields = table_of(stage.recipe).dataset().schema
    return [str(field.name) for field in fields if schema.is_hidden(field)]
