"""The crowd at work, until its re-embed has put a space in service often enough."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from embedding_core.runs.embed.planning import plan
from experiments.faults.child import Ending, in_child
from experiments.faults.injections import Experiment, Point, Tally, numbered
from experiments.faults.stage import Wrong, raise_if, run
from experiments.faults.world import differences
from experiments.machine.spaces import spaces_of, unfilled
from experiments.races.crowd import FILES, LOCK_WAIT_SECONDS, TIMING, Crowd
from experiments.races.together import at_once

ROUNDS, PROMOTES_PER_ROUND = 50, 2
NO_INDEX: Mapping[str, Any] = {}
INDEX: Mapping[str, Any] = {"min_rows": 256, "target_recall": 0.5}
"""A vector index, which is trained for each space that is promoted."""


def loops(folder: Path, index: Mapping[str, Any] = NO_INDEX) -> Experiment:
    """Runs, maintenance, a re-embed and two readers of one table, all at once."""

    def inject(point: Point, tally: Tally) -> None:
        crowd = Crowd(folder / "crowd", point.number, index)
        for file in range(FILES):
            crowd.write(file, edition=file)
        if tally.expect("the first run", in_child(partial(_run_and_check, crowd))):
            _work_at_once(crowd, tally)
            tally.expect("the next run", in_child(partial(_run_and_check, crowd)))
        shutil.rmtree(crowd.folder)

    return Experiment(
        injects="runs, maintenance, a re-embed that promotes twice, and two readers at once"
        + (", with a vector index" if index else ""),
        must_hold="each read is one state that was committed, with a vector of one space in every "
        "row; in the end a run makes the table right",
        stage=None,
        points=numbered("round", ROUNDS),
        inject=inject,
        is_drawn=True,
    )


def _work_at_once(crowd: Crowd, tally: Tally) -> None:
    roles: dict[str, Callable[[], Any]] = {
        "the runs": crowd.ingest,
        "maintenance": crowd.maintain,
        "the re-embed": partial(crowd.reembed, PROMOTES_PER_ROUND),
        "a reader": crowd.read,
        "another reader": crowd.read,
    }
    endings = dict(zip(roles, at_once(list(roles.values())), strict=True))
    tally.injections += 1
    for role, ending in endings.items():
        if tally.expect(role, ending):
            _count(ending, tally)
    _compare([endings["a reader"], endings["another reader"]], tally)


def _count(ending: Ending, tally: Tally) -> None:
    if "digests" in ending.value:
        tally.counts["versions read"] += len(ending.value["digests"])
    else:
        tally.endings.update(Counter(ending.value))


def _compare(readers: list[Ending], tally: Tally) -> None:
    """Note versions that two readers read in different ways."""
    first, second = ((reader.value or {}).get("digests", {}) for reader in readers)
    differing = [version for version in first.keys() & second if first[version] != second[version]]
    tally.violations += [f"version {version} is read in two ways" for version in differing]


def _run_and_check(crowd: Crowd) -> None:
    report = run(crowd.recipe, TIMING, LOCK_WAIT_SECONDS)
    if report.outcome != "done":
        raise Wrong(f"the run ended as {report.outcome}: {report.failures}")
    raise_if(differences(crowd.recipe, crowd.contents()))
    spaces = spaces_of(crowd.recipe)
    if spaces is not None:
        unfilled(crowd.recipe, spaces.hidden_dims)
    if not plan(crowd.recipe).is_empty:
        raise Wrong("the run left something to do")
