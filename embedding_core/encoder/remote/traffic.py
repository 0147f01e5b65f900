"""Requests to several servers at once: each goes to the server that has most room.

A request that may pass is sent again, after a pause that grows, to whichever server has room then.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import stamina

from embedding_core.encoder.remote.concurrency import Clock, Concurrency
from embedding_core.encoder.remote.dialects import DIALECTS, Answered
from embedding_core.encoder.remote.server import Hung, Overloaded, Server, Unanswered
from embedding_core.errors import ModelError, words

log = logging.getLogger(__name__)
logging.getLogger("stamina").setLevel(logging.ERROR)  # its line of a retry does not say why

ATTEMPTS = 6
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.2, 10.0
"""Pauses between attempts, doubling; about ten seconds in all."""
LONGEST_ASKED_SECONDS = 30.0
"""A server that asks for a longer pause fails the request at once; the task is tried again."""
MOST_HANGS = 1
"""Requests without an answer in time that are sent again: each has taken its time."""
SILENT_SECONDS = 1.0
"""A server that did not answer is left alone for so long, when there are others."""
HUNG_SECONDS = LONGEST_KEPT_SECONDS = 60.0
"""So long, when it kept a request without an answer: the next would take as long again. No server
is left alone for longer: who asks for that fails its requests, and is asked again by the next."""

Result = TypeVar("Result")


def tried_again(step: Callable[[], Result]) -> Result:
    """Run a step, again when it raises ``Overloaded`` or ``Unanswered``; ``Retry-After`` counts."""
    patience = _Patience()
    for attempt in stamina.retry_context(
        on=patience.seconds_to_wait,
        attempts=ATTEMPTS,
        timeout=None,
        wait_initial=FIRST_PAUSE_SECONDS,
        wait_max=LONGEST_PAUSE_SECONDS,
    ):
        with attempt:
            return step()
    raise AssertionError("the last attempt returns or raises")


@dataclass(slots=True)
class _Patience:
    """How long a step is tried."""

    hangs_left: int = MOST_HANGS
    said: str = ""
    """The fault that was logged last; the same is not logged again."""

    def seconds_to_wait(self, error: Exception) -> bool | float:
        """False not to try again; True for a pause that grows; the seconds that a server asks
        for."""
        if not isinstance(error, Overloaded | Unanswered):
            return False
        if words(error) != self.said:
            self.said = words(error)
            log.warning("%s; it is tried again", self.said)
        self.hangs_left -= isinstance(error, Hung)
        if self.hangs_left < 0 or error.pause_seconds > LONGEST_ASKED_SECONDS:
            return False
        return error.pause_seconds or True


@dataclass(frozen=True, slots=True)
class Target:
    """What is asked, of whichever server."""

    api: str
    model: str
    in_base64: bool
    n_values: int | None
    """Length of a vector; None before the first answer."""


class Abandoned(Exception):
    """Nobody waits for the answer any more."""


class Traffic:
    """The requests of one encoder; safe to use from several threads."""

    def __init__(
        self, servers: Sequence[Server], at_once: int, clock: Clock = time.monotonic
    ) -> None:
        self._lanes = [(server, Concurrency(at_once, clock)) for server in servers]
        self._at_once = at_once
        self._changed = threading.Condition()

    def vectors(
        self,
        target: Target,
        texts: Sequence[str],
        n_tokens: int,
        is_abandoned: Callable[[], bool] = lambda: False,
    ) -> Answered:
        """(n_texts, n_values) as a server gives them; waits for room. Raises ``ModelError`` for an
        answer of another count or length than it must be, ``Abandoned`` before another request
        once ``is_abandoned``."""
        return tried_again(lambda: self._attempt(target, texts, n_tokens, is_abandoned))

    def wake(self) -> None:
        """Have those who wait for room look whether they are abandoned."""
        with self._changed:
            self._changed.notify_all()

    def _attempt(
        self,
        target: Target,
        texts: Sequence[str],
        n_tokens: int,
        is_abandoned: Callable[[], bool],
    ) -> Answered:
        dialect = DIALECTS[target.api]
        path, body = dialect.request(texts, target.model, target.in_base64)
        server, concurrency, ticket = self._with_room(is_abandoned)
        has_others = len(self._lanes) > 1
        try:
            answer = server.post(path, body)
        except Overloaded as error:
            pause = HUNG_SECONDS if has_others and isinstance(error, Hung) else error.pause_seconds
            self._noted(concurrency.overloaded, ticket, min(pause, LONGEST_KEPT_SECONDS))
            raise
        except Unanswered:
            self._noted(concurrency.unanswered, SILENT_SECONDS if has_others else 0.0)
            raise
        except BaseException:
            self._noted(concurrency.answered, 0)
            raise
        self._noted(concurrency.answered, n_tokens)
        try:
            vectors = dialect.vectors(answer)
        except ValueError as error:
            raise Unanswered(
                f"{server.url} answers POST {path} with no vectors that can be read ({error}); "
                "look whether model.api is what the server speaks, and at what stands before it"
            ) from error
        return _checked(vectors, target, len(texts), server.url)

    def _with_room(self, is_abandoned: Callable[[], bool]) -> tuple[Server, Concurrency, int]:
        """A server that may be asked now, and its request counted as started."""
        with self._changed:
            while True:
                if is_abandoned():
                    raise Abandoned
                lanes = [lane for lane in self._lanes if lane[1].has_room]
                n_under_way = sum(concurrency.in_flight for _, concurrency in self._lanes)
                if lanes and n_under_way < self._at_once:
                    server, concurrency = max(lanes, key=lambda lane: _room(lane[1]))
                    return server, concurrency, concurrency.started()
                paused = [c.seconds_paused for _, c in self._lanes if c.seconds_paused]
                self._changed.wait(min(paused, default=None))

    def _noted(self, note: Callable[..., None], *figures: float) -> None:
        """Note what became of a request, and wake those who wait for room."""
        with self._changed:
            note(*figures)
            self._changed.notify_all()


def _room(concurrency: Concurrency) -> int:
    return concurrency.limit - concurrency.in_flight


def _checked(vectors: Answered, target: Target, n_texts: int, url: str) -> Answered:
    if len(vectors) != n_texts:
        raise ModelError(
            f"{url} gives {len(vectors)} vectors for {n_texts} texts; its answers cannot be "
            "trusted: look at its version and at what stands before it, then run again"
        )
    if target.n_values is not None and vectors.shape[1] != target.n_values:
        raise ModelError(
            f"{url} gives vectors of {vectors.shape[1]} values where it gave {target.n_values}: it "
            f"serves another model than {target.model!r} now. Nothing of this task is written: "
            "start it with the model that it served, or embed the table again with the new one",
            action="reembed",
        )
    return vectors
