"""What is done to a peer at its work, and what is wrong after the same command again."""

from __future__ import annotations

import errno
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from experiments.faults.injections import Tally
from experiments.faults.shim import KILLED, Fault
from experiments.peers.kinds import FAILS_AGAIN, TORN, UNTRUE
from experiments.peers.oracle import kinds_of_wrong, torn_files
from experiments.peers.peer import Peer

SECONDS_PER_TEXT = 0.02
"""A slow encoder: an update embeds some fifty texts."""
PATIENCE_SECONDS = 120.0
"""A successor that takes longer waits for the sleeper."""
MISSED = "ended before the fault"


@dataclass(frozen=True, slots=True)
class Trial:
    """An experiment that every peer goes through."""

    injects: str
    rounds: int
    harm: Callable[[Peer, random.Random, Tally], bool]
    """Does the harm; False when the program ended before it."""


def tried(trial: Trial, name: str, peer: Peer, number: int) -> Tally:
    """Do a trial once; the number draws what is left to chance, another for each peer."""
    tally = Tally()
    peer.put_back()
    if not trial.harm(peer, random.Random(f"{name} {peer.name} {number}"), tally):
        tally.counts[MISSED] += 1
        return tally
    tally.injections += 1
    status = peer.run()
    kinds = kinds_of_wrong(peer.lake, peer.corpus)
    if status:
        tally.counts[FAILS_AGAIN] += 1
        tally.violations.append(f"{FAILS_AGAIN} with {status}: {peer.said()}")
    elif kinds:
        tally.counts.update(kinds)
        tally.violations.append(", ".join(kinds))
    tally.counts[TORN] += bool(torn_files(peer.lake, peer.version, peer.before, peer.corpus))
    return tally


def _kill_at_change(peer: Peer, chance: random.Random, tally: Tally) -> bool:
    fault = chance.choice((Fault.KILL_BEFORE, Fault.KILL_AMID))
    status = peer.run(fault=fault, change=chance.randint(1, peer.n_changes[False]))
    _note_ending(tally, status)
    return status == KILLED


def _kill_at_moment(peer: Peer, chance: random.Random, tally: Tally) -> bool:
    seconds = chance.uniform(0, peer.slow_seconds(SECONDS_PER_TEXT))
    pid = peer.start(seconds_per_text=SECONDS_PER_TEXT)
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)
    status = peer.ended(pid)
    _note_ending(tally, status)
    return status != 0


def _fail_a_write(peer: Peer, chance: random.Random, tally: Tally) -> bool:
    change = chance.randint(1, peer.n_changes[True])
    status = peer.run(fault=Fault.FAIL_ONCE, change=change, number=errno.ENOSPC)
    _note_ending(tally, status)
    if peer.changes() < change:
        return False
    tally.counts[UNTRUE] += status == 0 and bool(kinds_of_wrong(peer.lake, peer.corpus))
    return True


def _run_twice_at_once(peer: Peer, chance: random.Random, tally: Tally) -> bool:
    pids = [peer.start(seconds_per_text=SECONDS_PER_TEXT, log=f"log{n}") for n in range(2)]
    for pid in pids:
        _note_ending(tally, peer.end(pid))
    return True


def _sleep_and_wake(peer: Peer, chance: random.Random, tally: Tally) -> bool:
    sleeper = peer.start(fault=Fault.STOP, change=chance.randint(1, peer.n_changes[False]))
    if not peer.is_stopped(sleeper):
        peer.end(sleeper)
        return False
    successor = peer.start(log="successor")
    status = peer.ended(successor, PATIENCE_SECONDS)
    tally.counts["a successor waited"] += status is None
    os.kill(sleeper, signal.SIGCONT)
    _note_ending(tally, peer.end(sleeper))
    _note_ending(tally, peer.end(successor) if status is None else status)
    return True


def _note_ending(tally: Tally, status: int | None) -> None:
    words = {0: "done", KILLED: "killed", -signal.SIGKILL: "killed", None: "hang"}
    tally.endings[words.get(status, f"status {status}")] += 1


TRIALS = {
    "kills": Trial(
        "SIGKILL before a change of a file, or amid it (half of a write)", 120, _kill_at_change
    ),
    "kills-at-moments": Trial(
        "SIGKILL at a random moment, with a slow encoder", 60, _kill_at_moment
    ),
    "writes": Trial("one write fails (`ENOSPC`), then all is well", 60, _fail_a_write),
    "two-runs": Trial("two runs begin at once, with a slow encoder", 30, _run_twice_at_once),
    "sleepers": Trial(
        "a run is stopped at a change of a file, its successor does the work, then it wakes",
        30,
        _sleep_and_wake,
    ),
}
"""By name."""
