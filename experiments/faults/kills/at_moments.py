"""A run, a re-embed or a maintenance is killed at a random moment, and the same is done again."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from embedding_core.encoder.engines import describe_model
from embedding_core.encoder.hashing import HashingEncoder
from embedding_core.lake.table import table_of
from experiments.faults.child import Child, in_child
from experiments.faults.injections import Experiment, Point, Tally, numbered
from experiments.faults.kills.marks import FILLING, Marks
from experiments.faults.kills.work import OTHER_MODEL, build_other_space, maintain_table
from experiments.faults.stage import Stage, raise_if, shared_stage, with_work
from experiments.faults.world import wrong_vectors

MOMENTS = {"run": 360, "re-embed": 180, "maintenance": 60}
"""Kills of each kind of work: more than 500, because work may end before its kill."""
SECONDS_PER_TEXT = 0.01
"""Makes about half of the work's time."""


@dataclass(frozen=True, slots=True)
class Work:
    """Work that is killed and done again."""

    stage: Stage
    action: Callable[[], Any]
    """Does the work."""
    check: Callable[[], None]
    """Raises ``Wrong`` when the work is not done, or the table is not true."""
    seconds: float
    """How long the work takes when nobody kills it."""
    n_texts: int
    """Texts that it encodes then."""
    most_in_flight: int
    """Texts that are worked on at once: those of the largest file or fragment."""


def kills_at_moments(folder: Path) -> Experiment:
    """Kill whoever encodes slowly; nothing that was finished is encoded again."""
    marks = Marks()
    works = {
        "run": _run(shared_stage(folder), marks),
        "re-embed": _reembed(folder / "re-embed", marks),
        "maintenance": _maintenance(folder / "maintenance", marks),
    }

    def inject(point: Point, tally: Tally) -> None:
        work = works[point.kind]
        work.stage.put_back()
        marks.clear()
        child = Child(marks.watched(work.action, SECONDS_PER_TEXT))
        time.sleep(random.Random(point.number).uniform(0, work.seconds))
        child.kill()
        ending = child.ending()
        if ending.status == 0:
            tally.counts["ended before the kill"] += 1
            return
        tally.injected(ending)
        tally.counts[f"amid {marks.stage or 'the rest'}"] += 1
        tally.counts["amid filling"] += marks.stage in FILLING
        tally.expect("the next", in_child(marks.watched(work.action, 0)))
        tally.expect("the table", in_child(work.check))
        n_again = marks.n_texts - work.n_texts
        tally.counts["texts encoded again"] += n_again
        if n_again > work.most_in_flight:
            tally.violations.append(
                f"{n_again} texts were encoded again, {work.most_in_flight} were in flight"
            )

    return Experiment(
        injects="SIGKILL at a random moment of a run, a re-embed or a maintenance whose encoder "
        "is slow",
        must_hold="the same again makes the table right; no more texts are encoded again than "
        "were in flight",
        stage=works["run"].stage,
        points=[point for kind, n in MOMENTS.items() for point in numbered(kind, n)],
        inject=inject,
        is_drawn=True,
    )


def _run(stage: Stage, marks: Marks) -> Work:
    return _measured(marks, stage, stage.run, stage.check_done, _largest_file)


def _reembed(folder: Path, marks: Marks) -> Work:
    stage = with_work(Stage(folder, seed=1))
    stage.prepare(stage.run)
    stage.save()
    check = partial(_check_space, stage)
    return _measured(marks, stage, partial(build_other_space, stage), check, _largest_fragment)


def _maintenance(folder: Path, marks: Marks) -> Work:
    """A table with small fragments, deleted rows and old versions."""
    stage = with_work(Stage(folder, seed=1))
    for number in range(3):
        stage.prepare_long_ago(stage.run)
        stage.world.write(f"f{number}.jsonl")
    stage.prepare(stage.run)
    stage.save()
    return _measured(marks, stage, partial(maintain_table, stage), stage.check_done, _largest_file)


def _check_space(stage: Stage) -> None:
    """Every row has a vector of the other model, and the table is as it was."""
    table = table_of(stage.recipe)
    space = describe_model(OTHER_MODEL).space
    (column,) = (name for name in table.dataset().schema.names if name.startswith("vector__"))
    rows = table.to_arrow(["doc_id", "text", column]).rename_columns(["doc_id", "text", "vector"])
    raise_if(wrong_vectors(HashingEncoder(space), rows.to_pylist()))
    raise_if(stage.world.problems(stage.recipe))


def _measured(
    marks: Marks,
    stage: Stage,
    action: Callable[[], Any],
    check: Callable[[], None],
    largest: Callable[[Stage], int],
) -> Work:
    """The work, done once by a child that nobody kills."""

    def timed() -> tuple[float, int]:
        started = time.monotonic()
        marks.watched(action, SECONDS_PER_TEXT)()
        return time.monotonic() - started, largest(stage)

    stage.put_back()
    marks.clear()
    seconds, most_in_flight = stage.prepare(timed)
    return Work(stage, action, check, seconds, marks.n_texts, most_in_flight)


def _largest_file(stage: Stage) -> int:
    """Rows of the file that has most."""
    uris = table_of(stage.recipe).to_arrow(["source_uri"])["source_uri"].to_pylist()
    return max(Counter(uris).values())


def _largest_fragment(stage: Stage) -> int:
    """Rows of the fragment that has most."""
    return max(int(part.count_rows()) for part in table_of(stage.recipe).dataset().get_fragments())
