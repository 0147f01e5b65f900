"""Retries: how often each layer tries a failed step again, and how the layers multiply.

    layer             tries                          heals
    store step        STORE_ATTEMPTS   = 5           a hiccup, a commit conflict (0.4 to 3 s pauses)
    Prefect task      1 + TASK_RETRIES = 4           a lost worker, an outage of some seconds
    work unit         halves, down to a file, twice  one bad file among many
    run               2 passes                       files that changed while they were read
    re-embed          CATCH_UPS        = 20          rows that arrive before the gate or the switch
    server's model    its ``Patience``               a hiccup; few tries while a person waits

The layers multiply: a store step inside a task is tried 5 x 4 = 20 times within about a minute. No
layer above repeats it: those repeat other work, for other reasons than a store that fails.
"""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass
from typing import TypeVar

from embedding_core.errors import Transient, words

log = logging.getLogger(__name__)

Result = TypeVar("Result")

STORE_ATTEMPTS = 5
FIRST_PAUSE_SECONDS = 0.2
TASK_RETRIES = 3
FIRST_TASK_PAUSE_SECONDS = 2
TASK_JITTER = 0.5
CATCH_UPS = 20
MOST_FAILED_FILES = 64
LONGEST_PAUSE_SECONDS = 30.0
"""A store that asks for a longer pause is left alone: the step fails at once, and says so."""
SILENT_SECONDS = 15.0
"""Longest time that a store or a library is waited for without a word in the log."""


def tried_again(
    doing: str,
    step: Callable[[int], Result],
    said: Callable[[BaseException], str] = words,
) -> Result:
    """Run a step, again after a pause when it raises ``Transient``; pauses double from 0.4 s, and
    are at least what the store asked for. The log has a line for each failed attempt.

    ``step`` takes the number of the attempt, from 1. It must look at what is there before it
    writes: an attempt whose reply was lost may have done its work. ``said`` puts the cause of the
    last failure into words. Raises ``Transient`` with what to do after ``STORE_ATTEMPTS``.
    """
    attempt = 1
    while True:
        try:
            return step(attempt)
        except Transient as error:
            cause = said(error.__cause__ or error)
            log.warning(
                "could not %s: %s (attempt %d of %d)", doing, cause, attempt, STORE_ATTEMPTS
            )
            asked_seconds = error.pause_seconds
            if asked_seconds > LONGEST_PAUSE_SECONDS:
                raise Transient(
                    f"could not {doing}: {cause}; run the same command again in "
                    f"{asked_seconds:,.0f} s",
                    action=error.action,
                ) from error
            if attempt == STORE_ATTEMPTS:
                raise Transient(
                    f"could not {doing} in {STORE_ATTEMPTS} attempts ({cause}); look for another "
                    "writer or a failing store, then run the same command again",
                    action=error.action,
                ) from error
        pause_seconds = FIRST_PAUSE_SECONDS * 2**attempt * random.uniform(0.5, 1.5)
        time.sleep(max(pause_seconds, asked_seconds))
        attempt += 1


@contextmanager
def waited_for(by_a_person: bool) -> Iterator[None]:
    """Say whether a person waits for what is done in this context, or a run does that may be left
    alone: a person hears soon of a server that does not answer."""
    token = _is_waited_for.set(by_a_person)
    try:
        yield
    finally:
        _is_waited_for.reset(token)


def is_waited_for() -> bool:
    """Whether a person waits."""
    return _is_waited_for.get()


_is_waited_for: ContextVar[bool] = ContextVar("is_waited_for", default=False)


@contextmanager
def never_silent(doing: str, every_seconds: float | None = None) -> Iterator[None]:
    """Say in the log, every ``SILENT_SECONDS`` or as often as said, that a step is not done yet.

    For what others do: the libraries of stores try again by themselves, for up to minutes and
    without a word.
    """
    step = _Step(doing, time.monotonic(), copy_context(), every_seconds or SILENT_SECONDS)
    _WATCHER.add(step)
    try:
        yield
    finally:
        _WATCHER.remove(step)


@dataclass(eq=False, slots=True)
class _Step:
    """A step under way. Its context is kept because a Prefect task's log is known by it."""

    doing: str
    started: float
    context: Context
    every_seconds: float
    n_lines: int = 0

    @property
    def due(self) -> float:
        """When its next line is due, on the monotonic clock."""
        return self.started + (self.n_lines + 1) * self.every_seconds

    def report(self) -> None:
        self.n_lines += 1
        seconds = time.monotonic() - self.started
        self.context.run(log.warning, "still trying to %s, for %.0f s now", self.doing, seconds)


class _Watcher:
    """One thread that watches every step of this process; it ends when no step is left.

    A thread for each step would cost more than a small request to a store.
    """

    def __init__(self) -> None:
        self._changes = threading.Condition()
        self._steps: set[_Step] = set()
        self._thread: threading.Thread | None = None
        self._wakes = math.inf
        """When the thread looks again, on the monotonic clock."""

    def add(self, step: _Step) -> None:
        with self._changes:
            self._steps.add(step)
            if self._thread is None or not self._thread.is_alive():  # not alive after a fork
                self._thread = threading.Thread(target=self._watch, daemon=True)
                self._thread.start()
            elif step.due < self._wakes:
                self._changes.notify()

    def remove(self, step: _Step) -> None:
        with self._changes:
            self._steps.discard(step)

    def _watch(self) -> None:
        while True:
            with self._changes:
                if not self._steps:
                    self._thread = None
                    return
                now = time.monotonic()
                late = [step for step in self._steps if step.due <= now]
                if not late:
                    self._wakes = min(step.due for step in self._steps)
                    self._changes.wait(self._wakes - now)
            for step in late:
                step.report()


_WATCHER = _Watcher()
