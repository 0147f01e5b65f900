"""How many requests a server gets at once: more while that brings more, half when it is too much.

Additive increase, multiplicative decrease, after a start that doubles (TCP's congestion control),
with throughput in the place of lost packets. Knows neither threads nor HTTP, and never waits.
"""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], float]
"""Seconds since any moment; never goes back."""

FIRST_LIMIT = 2
GAIN = 1.05
"""Growing pays when throughput grows by this factor."""
LEAST_ENDED = 4
"""Requests that end before throughput is judged, at least; else twice the limit."""
STEADY_WINDOWS = 8
"""After so many windows without growth, one request more is tried again: the server may have got
company, or may have lost it."""


class Concurrency:
    """The limit of one server. A caller says when a request starts and what becomes of it."""

    def __init__(self, most: int, clock: Clock = time.monotonic) -> None:
        self.limit = min(FIRST_LIMIT, most)
        """Requests that may be under way."""
        self.in_flight = 0
        self._most, self._clock = most, clock
        self._paused_until = clock()
        self._halvings = 0
        self._best_rate = 0.0  # tokens per second
        self._doubles = True  # before the first sign of overload, and of no gain
        self._trial = 0  # requests that were added to see whether they pay
        self._steady_windows = 0
        self._begin_window()

    @property
    def seconds_paused(self) -> float:
        """Time until the server wants to be asked again."""
        return max(0.0, self._paused_until - self._clock())

    @property
    def has_room(self) -> bool:
        """Whether another request may start now."""
        return self.in_flight < self.limit and not self.seconds_paused

    def started(self) -> int:
        """A request goes out. Gives a ticket for ``overloaded``."""
        self.in_flight += 1
        self._is_saturated |= self.in_flight >= self.limit
        return self._halvings

    def answered(self, n_tokens: int) -> None:
        """A request brought ``n_tokens``, 0 when it was refused for what it asks."""
        self.in_flight -= 1
        self._n_ended += 1
        self._n_tokens += n_tokens
        if self._n_ended >= max(LEAST_ENDED, 2 * self.limit):
            self._judge()

    def overloaded(self, ticket: int, pause_seconds: float = 0.0) -> None:
        """A request was too much: half as many from now on, and none for ``pause_seconds``.

        Requests that went out together fail together: they halve the limit once.
        """
        self.in_flight -= 1
        self._paused_until = max(self._paused_until, self._clock() + pause_seconds)
        if ticket == self._halvings:
            self._halvings += 1
            self.limit = max(1, self.limit // 2)
            self._doubles, self._trial, self._best_rate = False, 0, 0.0
            self._begin_window()

    def unanswered(self, pause_seconds: float = 0.0) -> None:
        """A request got no answer, which says nothing of how many were too many."""
        self.in_flight -= 1
        self._paused_until = max(self._paused_until, self._clock() + pause_seconds)

    def _judge(self) -> None:
        """Grow when the last growth paid; a window in which there was too little to do says
        nothing."""
        seconds = self._clock() - self._window_began
        rate = self._n_tokens / seconds if seconds > 0 else 0.0
        if self._is_saturated and rate > 0:
            if rate >= self._best_rate * GAIN:
                self._best_rate = rate
                self._grow()
            else:
                self._rest(rate)
        self._begin_window()

    def _grow(self) -> None:
        before = self.limit
        self.limit = min(self._most, 2 * before if self._doubles else before + 1)
        self._trial, self._steady_windows = self.limit - before, 0

    def _rest(self, rate: float) -> None:
        if not self._doubles:
            self.limit -= self._trial
        self._doubles, self._trial = False, 0
        self._steady_windows += 1
        if self._steady_windows >= STEADY_WINDOWS:
            self._best_rate = rate
            self._grow()

    def _begin_window(self) -> None:
        self._window_began = self._clock()
        self._n_ended = self._n_tokens = 0
        self._is_saturated = self.in_flight >= self.limit
