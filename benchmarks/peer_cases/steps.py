"""The steps that every peer goes through: how the files change, and what an update costs."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.peer_cases.corpus import Corpus, documents, overwrite_model, write
from benchmarks.peer_cases.oracle import compared
from benchmarks.peer_cases.peer import Peer
from benchmarks.peer_cases.processes import cpu_seconds, kill, reap, watched

MOST_SECONDS = 300


@dataclass(frozen=True)
class Measured:
    """One step of one peer."""

    seconds: float
    cpu_seconds: float
    """User and system time of the program and all that it started and ended."""
    peak_mib: float
    """Largest sum over its processes of memory that is theirs alone or their share."""
    exit_code: int
    problem: str | None
    """What the oracle says; None when the table is what the files say."""


def measured(peer: Peer, folder: Path, expected: Corpus, at_once: int = 1) -> Measured:
    """Run updates to their end and look at the table."""
    before, started = cpu_seconds(), time.perf_counter()
    processes = [peer.start(folder) for _ in range(at_once)]
    with watched(processes) as peak:
        deadline = started + MOST_SECONDS
        for process in processes:
            try:
                process.wait(max(1.0, deadline - time.perf_counter()))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    seconds = time.perf_counter() - started
    reap()
    codes = [process.returncode for process in processes]
    problem = compared(folder / "lake", expected, folder / "model")
    return Measured(seconds, cpu_seconds() - before, peak[0] / 2**20, max(codes, key=abs), problem)


def steps(folder: Path) -> Iterator[tuple[str, Callable[[Peer], Measured]]]:
    """The steps in order; each first changes the files, then measures an update."""
    corpus = documents()
    write(folder, corpus)
    names = sorted(corpus)

    def update(peer: Peer) -> Measured:
        return measured(peer, folder, corpus)

    def edited(peer: Peer) -> Measured:
        document = next(iter(corpus[names[3]]))
        corpus[names[3]][document] = "An edited text about something else: " + names[3]
        write(folder, corpus)
        return measured(peer, folder, corpus)

    def deleted(peer: Peer) -> Measured:
        del corpus[names[5]]
        write(folder, corpus)
        return measured(peer, folder, corpus)

    def renamed(peer: Peer) -> Measured:
        corpus["renamed.jsonl"] = corpus.pop(names[7])
        write(folder, corpus)
        return measured(peer, folder, corpus)

    def shrunk(peer: Peer) -> Measured:
        kept = dict(list(corpus[names[1]].items())[:5])
        corpus[names[1]] = kept
        write(folder, corpus)
        return measured(peer, folder, corpus)

    def killed(peer: Peer) -> Measured:
        for name in sorted(corpus):
            corpus[name] = {key: f"once more {key} {text}" for key, text in corpus[name].items()}
        write(folder, corpus)
        process = peer.start(folder)
        time.sleep(first_load_seconds[peer.name] / 2)
        kill(process)
        return measured(peer, folder, corpus)

    def two_at_once(peer: Peer) -> Measured:
        for name in sorted(corpus)[:4]:
            corpus[name] = {key: f"again {text}" for key, text in corpus[name].items()}
        write(folder, corpus)
        return measured(peer, folder, corpus, at_once=2)

    def bad_records(peer: Peer) -> Measured:
        name = names[2]
        corpus[name] = dict(list(corpus[name].items())[:20])
        write(folder, corpus)
        with (folder / "corpus" / name).open("a") as file:
            file.write(
                '{"id": "broken", "text": "cut o\n{"id": "number", "text": 7}\n{"id": "x"}\n'
            )
        return measured(peer, folder, corpus)

    def model_overwritten(peer: Peer) -> Measured:
        write(folder, corpus)
        before = shutil.copytree(folder / "model", folder / "model-before")
        overwrite_model(folder / "model")
        done = measured(peer, folder, corpus)
        if done.problem and compared(folder / "lake", corpus, before) is None:
            return replace(done, problem="every vector is the old model's, none is mixed in")
        return done

    yield "first load", update
    yield "nothing changed", update
    yield "one document edited", edited
    yield "one file deleted", deleted
    yield "one file renamed", renamed
    yield "one file shrunk", shrunk
    yield "killed at half, then run again", killed
    yield "two at once", two_at_once
    yield "three bad records", bad_records
    yield "model overwritten in place", model_overwritten


first_load_seconds: dict[str, float] = {}
"""How long each peer's last first load took: what half of a run is."""
