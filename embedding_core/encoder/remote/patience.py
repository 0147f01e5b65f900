"""How long servers are waited for: a run bears with them, a person hears soon what is wrong."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import stamina

from embedding_core.encoder.remote.server import (
    ANSWER_SECONDS,
    CONNECT_SECONDS,
    Hung,
    Overloaded,
    Server,
    Unanswered,
)
from embedding_core.errors import words
from embedding_core.store.retry import SILENT_SECONDS, is_waited_for

log = logging.getLogger(__name__)
logging.getLogger("stamina").setLevel(logging.ERROR)  # its line of a retry does not say why

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.2, 10.0
"""Pauses between attempts, doubling."""

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Patience:
    """How often and for how long a server is asked."""

    attempts: int
    hangs: int
    """Requests without an answer in time that are sent again: each has taken its time."""
    asked_seconds: float
    """A server that asks for a longer pause fails the request at once."""
    connect_seconds: float
    look_seconds: float
    """For an answer that costs a server nothing: what it serves."""
    answer_seconds: float
    """For vectors."""
    silent_seconds: float
    """So often it is said that a server is waited for."""

    def server(self, url: str) -> Server:
        """A server that is asked with these limits."""
        return Server(url, self.answer_seconds, self.look_seconds, self.connect_seconds)

    def tried_again(self, step: Callable[[], Result]) -> Result:
        """Run a step, again when it raises ``Overloaded`` or ``Unanswered``; ``Retry-After``
        counts."""
        faults = _Faults(self)
        for attempt in stamina.retry_context(
            on=faults.seconds_to_wait,
            attempts=self.attempts,
            timeout=None,
            wait_initial=FIRST_PAUSE_SECONDS,
            wait_max=LONGEST_PAUSE_SECONDS,
        ):
            with attempt:
                return step()
        raise AssertionError("the last attempt returns or raises")


OF_A_RUN = Patience(
    attempts=6,
    hangs=1,
    asked_seconds=30.0,
    connect_seconds=CONNECT_SECONDS,
    look_seconds=ANSWER_SECONDS,
    answer_seconds=ANSWER_SECONDS,
    silent_seconds=SILENT_SECONDS,
)
"""About ten seconds of pauses; the task is tried again after that."""
OF_A_PERSON = Patience(
    attempts=2,
    hangs=0,
    asked_seconds=2.0,
    connect_seconds=2.0,
    look_seconds=4.0,
    answer_seconds=ANSWER_SECONDS,
    silent_seconds=4.0,
)
"""A server that is down is said within five seconds. One that is slow has time for vectors: a large
model on a cold machine needs it."""


def patience() -> Patience:
    """That of who waits for what is being done."""
    return OF_A_PERSON if is_waited_for() else OF_A_RUN


class _Faults:
    """What went wrong with a step so far."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._hangs_left = patience.hangs
        self._said = ""

    def seconds_to_wait(self, error: Exception) -> bool | float:
        """False not to try again; True for a pause that grows; the seconds that a server asks
        for."""
        if not isinstance(error, Overloaded | Unanswered):
            return False
        self._hangs_left -= isinstance(error, Hung)
        if self._hangs_left < 0 or error.pause_seconds > self._patience.asked_seconds:
            return False
        if words(error) != self._said:  # the same fault is not logged again
            self._said = words(error)
            log.warning("%s; it is tried again", self._said)
        return error.pause_seconds or True
