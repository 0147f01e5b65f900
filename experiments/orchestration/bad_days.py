"""Each bad day: what is done to the services or to a run when it has encoded some of its texts."""

from __future__ import annotations

import math
import random
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil

from experiments.faults.child import Ending, in_child
from experiments.faults.injections import Experiment, Point, Tally, numbered
from experiments.faults.stage import raise_if
from experiments.faults.world import readable
from experiments.orchestration.runs import CommandRun, DeployedRun, Run
from experiments.orchestration.services import Part
from experiments.orchestration.stage import ServedStage, served_stage, wait_until
from tests.waiting import Pieces

RUNS = 20
"""Of each kind."""
MOMENTS = range(1, 9)
"""A run has encoded so many pieces, about one a file, when it is hit."""
WORKERS = 2
"""Most pieces that are encoded at once."""
BEGIN_SECONDS = 300.0
LONGEST_AWAY_SECONDS = 12.0
"""A server is away, or a database locked, for up to so long."""

THROTTLED_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Day:
    """What an injection has: its stage, the run that is hit, and chance of its own."""

    stage: ServedStage
    run: Run
    chance: random.Random
    next_moment: int | None
    """Of another hit."""

    def go_on(self) -> None:
        """Let the run work, up to the moment of the next hit."""
        pieces = self.stage.services.pieces
        if self.next_moment is None:
            pieces.allow_all()
        else:
            pieces.allow(self.next_moment - pieces.n_encoded())

    def pass_time(self) -> None:
        """A while that the seed draws, in which the run goes on."""
        self.go_on()
        time.sleep(self.chance.uniform(0, LONGEST_AWAY_SECONDS))


@dataclass(frozen=True, slots=True)
class Kind:
    """What is done to a run."""

    hit: Callable[[Day], None]
    times: int = 1
    """Hits in one run, at different moments: of those that a run survives."""
    ends_unseen: bool = False
    """Nobody can say of the run how it ended."""


def servers(folder: Path) -> Experiment:
    """The Prefect server of a run is killed and started again, or its database is locked."""
    return _experiment(
        folder,
        injects="the Prefect server (SQLite) of a run is killed and started again up to "
        f"{LONGEST_AWAY_SECONDS:.0f} s later; or its database is locked by another for as long",
        kinds={
            "server killed and back": Kind(_server_away, times=3),
            "database locked": Kind(_database_locked, times=3),
        },
        parts=("server", "head"),
    )


def ray_workers(folder: Path) -> Experiment:
    """Processes of Ray that embed are killed, once or again and again."""
    kinds = {f"{n} times": Kind(_worker_killed, times=n) for n in (1, 2, 4)}
    return _experiment(
        folder,
        injects="SIGKILL of the process of Ray that embeds, 1, 2 or 4 times in a run",
        kinds=kinds,
        parts=("server", "head"),
    )


def ray_nodes(folder: Path) -> Experiment:
    """A node of two is gone amid a run, and comes back or not; or the head is gone."""
    return _experiment(
        folder,
        injects="a node of Ray's two is gone amid a run, for good or until it is started again; or "
        "the head is gone",
        kinds={
            "node gone": Kind(_node_gone),
            "node gone and back": Kind(_node_back, times=2),
            "head gone": Kind(_head_gone),
        },
        parts=("server", "head", "node"),
    )


def stopped_runs(folder: Path) -> Experiment:
    """The process of a run gets a signal."""
    return _experiment(
        folder,
        injects="SIGTERM of a run's process, Ctrl-C, or SIGKILL",
        kinds={
            "SIGTERM": Kind(_terminated),
            "SIGINT": Kind(_interrupted),
            "SIGKILL": Kind(_killed),
        },
        parts=("server", "head"),
    )


def throttled_runs(folder: Path) -> Experiment:
    """A run and all processes of Ray get a tenth of the CPU."""
    return _experiment(
        folder,
        injects="all processes of a run and of its Ray are awake for a tenth of the time only, as "
        f"under a CPU quota, for {THROTTLED_SECONDS:.0f} s",
        kinds={"awake for a tenth": Kind(_throttled, times=2)},
        parts=("server", "head"),
    )


def deployed_runs(folder: Path) -> Experiment:
    """A run of a deployment is cancelled, or loses the Prefect worker that started it."""
    return _experiment(
        folder,
        injects="a deployment's run is cancelled by the API; its Prefect worker is killed, alone "
        "or with the run",
        kinds={
            "cancelled": Kind(_cancelled),
            "worker killed": Kind(_starter_killed),
            "worker and run killed": Kind(_starter_and_run_killed, ends_unseen=True),
        },
        parts=("server", "head", "worker"),
        start=DeployedRun,
    )


def _server_away(day: Day) -> None:
    day.stage.services.kill("server")
    day.pass_time()
    day.stage.services.need("server")


def _database_locked(day: Day) -> None:
    with sqlite3.connect(day.stage.services.database, timeout=BEGIN_SECONDS) as database:
        database.execute("BEGIN EXCLUSIVE")
        day.pass_time()
    database.close()


def _worker_killed(day: Day) -> None:
    services = day.stage.services
    if not wait_until(lambda: bool(services.busy_workers()), BEGIN_SECONDS):
        raise RuntimeError("no process of Ray has a task")
    for process in services.busy_workers():
        process.kill()
        process.wait()


def _node_gone(day: Day) -> None:
    day.stage.services.kill("node")


def _node_back(day: Day) -> None:
    _node_gone(day)
    day.pass_time()
    day.stage.services.need("node")


def _head_gone(day: Day) -> None:
    day.stage.services.kill("head")


def _terminated(day: Day) -> None:
    _process(day).send_signal(signal.SIGTERM)


def _interrupted(day: Day) -> None:
    assert isinstance(day.run, CommandRun)
    day.run.interrupt()


def _killed(day: Day) -> None:
    _process(day).kill()


def _process(day: Day) -> subprocess.Popen[bytes]:
    assert isinstance(day.run, CommandRun)
    return day.run.process


def _throttled(day: Day) -> None:
    """The longest that nobody answers is shorter than what Ray waits for a node."""
    day.go_on()
    period = day.chance.uniform(0.2, 6.0)
    for _ in range(math.ceil(THROTTLED_SECONDS / period)):
        run = psutil.Process(_process(day).pid)
        family = [run, *run.children(recursive=True), *day.stage.services.family("head")]
        _signal(family, signal.SIGSTOP)
        time.sleep(0.9 * period)
        _signal(family, signal.SIGCONT)
        time.sleep(0.1 * period)
        if day.run.is_over:
            return


def _signal(processes: Sequence[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def _cancelled(day: Day) -> None:
    assert isinstance(day.run, DeployedRun)
    day.run.cancel()


def _starter_killed(day: Day) -> None:
    """The process of the worker alone, of which the run is a child."""
    _, worker, *_ = day.stage.services.family("worker")
    worker.kill()


def _starter_and_run_killed(day: Day) -> None:
    day.stage.services.kill("worker")


def _experiment(
    folder: Path,
    injects: str,
    kinds: Mapping[str, Kind],
    parts: Sequence[Part],
    start: Callable[[ServedStage], Run] = CommandRun,
) -> Experiment:
    stage = served_stage(folder.parent / "served")

    def inject(point: Point, tally: Tally) -> None:
        stage.put_back()
        stage.services.need(*parts)
        stage.services.pieces.clear()
        kind, chance = kinds[point.kind], random.Random(f"{point.kind} {point.number}")
        tally.injected(_hit_run(stage, kind, chance, tally, start))
        tally.expect("readers", in_child(lambda: raise_if(readable(stage.recipe))))
        tally.expect("the next run", in_child(stage.run_and_check))
        _count_texts(stage, tally)

    return Experiment(
        injects=injects,
        must_hold="a run that says done is done, any other ends; readers see whole files; the next "
        "run makes the table right; no more texts are encoded again than were in flight",
        stage=stage,
        points=[point for kind in kinds for point in numbered(kind, RUNS)],
        inject=inject,
        is_drawn=True,
    )


def _hit_run(
    stage: ServedStage,
    kind: Kind,
    chance: random.Random,
    tally: Tally,
    start: Callable[[ServedStage], Run],
) -> Ending:
    """Start a run and hit it at its moments; how it ended."""
    pieces = stage.services.pieces
    moments = sorted(chance.sample(MOMENTS, kind.times))
    pieces.allow(moments[0])
    run = start(stage)
    for number, (moment, following) in enumerate(zip(moments, [*moments[1:], None], strict=True)):
        is_there = partial(_is_there, run, pieces, moment)
        if not wait_until(is_there, BEGIN_SECONDS) or run.is_over:
            tally.counts["ended before a moment"] += 1
            break
        tally.expect("readers amid the run", in_child(lambda: raise_if(readable(stage.recipe))))
        day = Day(stage, run, chance, following)
        kind.hit(day)
        day.go_on()
        tally.injections += number > 0
        tally.counts["further hits of a run"] += number > 0
    pieces.allow_all()
    ending = Ending(-signal.SIGKILL) if kind.ends_unseen else run.ending()
    if ending.status == 0:
        tally.expect("the table of a run that says done", in_child(stage.check))
    return ending


def _is_there(run: Run, pieces: Pieces, moment: int) -> bool:
    return pieces.n_encoded() >= moment or run.is_over


def _count_texts(stage: ServedStage, tally: Tally) -> None:
    pieces = stage.services.pieces.of_texts()
    texts = [text for piece in pieces for text in piece]
    n_again = len(texts) - len(set(texts))
    tally.counts["texts encoded again"] += n_again
    n_hits = 1 + tally.counts["further hits of a run"]
    most_in_flight = n_hits * WORKERS * max(map(len, pieces))
    if n_again > most_in_flight:
        tally.violations.append(
            f"{n_again} texts were encoded again, {most_in_flight} were in flight"
        )
