"""A run may open few files, or has too little memory for one text."""

from __future__ import annotations

import resource
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from experiments.faults.child import Child, in_child
from experiments.faults.injections import Experiment, Point, Tally, numbered
from experiments.faults.stage import Stage, raise_if, shared_stage
from experiments.faults.world import readable

DESCRIPTORS = range(16, 129)
"""From what Lance needs to begin at all, to more than a run of a few files needs."""
LONG_WORDS = 150_000
STEP_BYTES, STEPS = 5 * 2**20, 40
LONG_FILE = "long.jsonl"
LONGEST_SECONDS = 20.0
"""Lance may wait for memory for minutes: the run is killed then, as by a system out of memory."""


def few_descriptors(folder: Path) -> Experiment:
    """Let the run open so many files and no more."""
    stage = shared_stage(folder)

    def inject(point: Point, tally: Tally) -> None:
        stage.put_back()
        ending = in_child(_limited(resource.RLIMIT_NOFILE, point.number, stage.run))
        tally.injected(ending)
        if ending.kind == "done":
            tally.expect("the table of a run that says done", in_child(stage.check))
        tally.expect("readers", in_child(lambda: raise_if(readable(stage.recipe))))
        tally.expect("the next run", in_child(stage.run_and_check))

    return Experiment(
        injects="a run may have no more than a number of files open",
        must_hold="a run that says done is done; readers see whole files; without it the next "
        "run makes the table right",
        stage=stage,
        points=[Point("descriptors", number) for number in DESCRIPTORS],
        inject=inject,
    )


def little_memory(folder: Path) -> Experiment:
    """Give the run less memory than a text takes, or hardly more."""
    stage = Stage(folder, seed=1, chunk={"max_tokens": 512})
    for number in range(4):
        stage.world.write(f"f{number}.jsonl")
    stage.world.write(LONG_FILE, n_documents=1, n_words=LONG_WORDS)
    stage.save()
    stage.prepare(stage.run_and_check)

    def run_within(n_bytes: int) -> Callable[[], Any]:
        def act() -> Any:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            limit = pages * resource.getpagesize() + n_bytes
            return _limited(resource.RLIMIT_AS, limit, stage.run)()

        return act

    def inject(point: Point, tally: Tally) -> None:
        stage.put_back()
        ending = Child(run_within(point.number * STEP_BYTES)).ending(LONGEST_SECONDS)
        tally.injected(replace(ending, is_hang=False))
        if ending.kind == "done":
            tally.expect("the other files", in_child(lambda: raise_if(_unlisted(stage))))
        tally.expect("the next run", in_child(stage.run_and_check))

    return Experiment(
        injects="a text exhausts the memory that a run may take; a run that waits for memory is "
        "killed",
        must_hold="a run that says done has done all but the text, and lists it; without the limit "
        "the next run makes the table right",
        stage=stage,
        points=numbered(f"x {STEP_BYTES // 2**20} MiB", STEPS),
        inject=inject,
    )


def _unlisted(stage: Stage) -> list[str]:
    """What is wrong with the table, beside a long file that is listed as a reject."""
    problems = stage.world.problems(stage.recipe)
    about_long = [problem for problem in problems if LONG_FILE in problem]
    is_listed = any(problem.startswith("reject") for problem in about_long)
    return [problem for problem in problems if not is_listed or problem not in about_long]


def _limited(what: int, soft: int, action: Callable[[], Any]) -> Callable[[], Any]:
    """The action of a child with a lower limit."""

    def act() -> Any:
        _, hard = resource.getrlimit(what)
        resource.setrlimit(what, (soft, hard))
        try:
            return action()
        finally:
            resource.setrlimit(what, (hard, hard))

    return act
