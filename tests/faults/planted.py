"""A target that breaks a promise in every way there is, by its first byte."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from experiments.fuzz.target import Check, Target, Wrong

ACTIONS = b"wedh."
"""Wrong, an error, death, a hang; any other byte is fine."""


def seeds() -> Sequence[bytes]:
    return [b"."]


def check(data: bytes) -> str:
    match data[:1]:
        case b"w":
            raise Wrong("a wrong answer")
        case b"e":
            raise LookupError("an error that nobody expects")
        case b"d":
            os.kill(os.getpid(), signal.SIGSEGV)
        case b"h":
            signal.pause()
    return "fine"


@contextmanager
def opened(folder: Path) -> Iterator[Check]:
    yield check


def change(data: bytes, chance: object, material: object) -> bytes:
    return bytes([chance.choice(ACTIONS)])  # type: ignore[attr-defined]


PLANTED = Target("planted", seeds, opened, (), (change,), where="tests.faults.planted:PLANTED")
