"""Requests to several servers at once: each goes to the server that has most room.

A request that may pass is sent again, after a pause that grows, to whichever server has room then.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from embedding_core.encoder.remote.concurrency import Clock, Concurrency
from embedding_core.encoder.remote.dialects import DIALECTS, Answered
from embedding_core.encoder.remote.patience import OF_A_RUN, Patience
from embedding_core.encoder.remote.permits import Lease, leased
from embedding_core.encoder.remote.server import Hung, Overloaded, Server, Unanswered
from embedding_core.errors import ModelError, Transient
from embedding_core.plurals import counted

SILENT_SECONDS = 1.0
"""A server that did not answer is left alone for so long, when there are others."""
HUNG_SECONDS = LONGEST_KEPT_SECONDS = 60.0
"""So long, when it kept a request without an answer: the next would take as long again. No server
is left alone for longer: who asks for that fails its requests, and is asked again by the next."""


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
        self,
        servers: Sequence[Server],
        at_once: int,
        patience: Patience = OF_A_RUN,
        clock: Clock = time.monotonic,
    ) -> None:
        self._lanes = [(server, Concurrency(at_once, clock)) for server in servers]
        self._at_once = at_once
        self._patience = patience
        self._changed = threading.Condition()

    def leased(self) -> AbstractContextManager[Lease]:
        """Permits for the requests of one piece of work."""
        return leased(self._at_once, self._changed)

    def vectors(
        self, target: Target, texts: Sequence[str], n_tokens: int, lease: Lease
    ) -> Answered:
        """(n_texts, n_values) as a server gives them; waits for room and for a permit. Raises
        ``ModelError`` for an answer of another count or length than it must be, ``Abandoned``
        before another request once the lease is over."""
        return self._patience.tried_again(lambda: self._attempt(target, texts, n_tokens, lease))

    def _attempt(
        self, target: Target, texts: Sequence[str], n_tokens: int, lease: Lease
    ) -> Answered:
        dialect = DIALECTS[target.api]
        path, body = dialect.request(texts, target.model, target.in_base64)
        server, concurrency, ticket = self._with_room(lease)
        has_others = len(self._lanes) > 1
        try:
            answer = server.post(path, body)
        except Overloaded as error:
            pause = HUNG_SECONDS if has_others and isinstance(error, Hung) else error.pause_seconds
            self._noted(lease, concurrency.overloaded, ticket, min(pause, LONGEST_KEPT_SECONDS))
            raise
        except Unanswered:
            self._noted(lease, concurrency.unanswered, SILENT_SECONDS if has_others else 0.0)
            raise
        except BaseException:
            self._noted(lease, concurrency.answered, 0)
            raise
        self._noted(lease, concurrency.answered, n_tokens)
        try:
            vectors = dialect.vectors(answer)
        except ValueError as error:
            raise Unanswered(
                f"{server.url} answers POST {path} with no vectors that can be read ({error}); "
                "look whether model.api is what the server speaks, and at what stands before it"
            ) from error
        return _checked(vectors, target, len(texts), server.url)

    def _with_room(self, lease: Lease) -> tuple[Server, Concurrency, int]:
        """A server that may be asked now, and its request counted as started."""
        with self._changed:
            lease.n_waiting += 1
            try:
                while True:
                    if lease.is_over:
                        raise Abandoned
                    if lease.failure is not None:
                        raise Transient(
                            f"the permits for requests cannot be had ({lease.failure})"
                        ) from lease.failure
                    lease.want(min(lease.in_flight + lease.n_waiting, self._limit()))
                    lanes = [lane for lane in self._lanes if lane[1].has_room]
                    n_under_way = sum(concurrency.in_flight for _, concurrency in self._lanes)
                    if lanes and n_under_way < self._at_once and lease.has_permit:
                        server, concurrency = max(lanes, key=lambda lane: _room(lane[1]))
                        lease.in_flight += 1
                        return server, concurrency, concurrency.started()
                    paused = [c.seconds_paused for _, c in self._lanes if c.seconds_paused]
                    self._changed.wait(min(paused, default=None))
            finally:
                lease.n_waiting -= 1

    def _limit(self) -> int:
        """Requests that the servers may get at once."""
        return min(self._at_once, sum(concurrency.limit for _, concurrency in self._lanes))

    def _noted(self, lease: Lease, note: Callable[..., None], *figures: float) -> None:
        """Note what became of a request, and wake those who wait for room."""
        with self._changed:
            lease.in_flight -= 1
            note(*figures)
            self._changed.notify_all()


def _room(concurrency: Concurrency) -> int:
    return concurrency.limit - concurrency.in_flight


def _checked(vectors: Answered, target: Target, n_texts: int, url: str) -> Answered:
    if len(vectors) != n_texts:
        raise ModelError(
            f"{url} gives {counted(len(vectors), 'vector')} for {counted(n_texts, 'text')}; its "
            "answers cannot be "
            "trusted: look at its version and at what stands before it, then run again"
        )
    if target.n_values is not None and vectors.shape[1] != target.n_values:
        raise ModelError(
            f"{url} gives vectors of {counted(vectors.shape[1], 'value')} where it gave "
            f"{target.n_values}: it serves another model than {target.model!r} now. Nothing of "
            "this task is written: "
            "start it with the model that it served, or embed the table again with the new one",
            action="reembed",
        )
    return vectors
