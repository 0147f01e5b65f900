"""Permits: how many requests each task of a run may have under way, so that all of a run together
keep to ``at_once`` and use it whole.

``Permits`` has the count of a run. A ``Lease`` is what one piece of work in a task has of it: it
asks for several permits in one exchange, at most a few times a second, and no request waits for an
exchange while its lease has a permit left. A lease that is silent was in a process that died, and
its permits go to others. Knows neither HTTP nor an orchestrator.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from embedding_core.encoder.remote.concurrency import Clock

EXCHANGE_SECONDS = 0.25
"""How often a lease asks again: for more, or to hear that others need some of its permits."""
LOST_SECONDS = 10.0
"""A lease that was silent for so long has lost its permits: forty exchanges did not come."""

Exchange = Callable[[str, int, int], int]
"""``Permits.exchange``, in this process or in another."""


@dataclass(frozen=True, slots=True)
class _Holder:
    """A lease, as the run knows it."""

    n_held: int
    """Permits that it may be using."""
    n_wanted: int
    heard_at: float
    """On the clock of the run."""


class Permits:
    """The permits of a run. Never are more than ``at_once`` with leases that are alive."""

    def __init__(
        self, at_once: int, lost_seconds: float = LOST_SECONDS, clock: Clock = time.monotonic
    ) -> None:
        self._at_once, self._lost_seconds, self._clock = at_once, lost_seconds, clock
        self._holders: dict[str, _Holder] = {}
        self._lock = threading.Lock()

    def exchange(self, lease_id: str, n_held: int, n_wanted: int) -> int:
        """How many permits a lease has from now on, when it keeps ``n_held`` of those it had.

        Fewer than ``n_held`` mean that it begins no request before enough of them have ended; until
        it says so, they are counted as held. What is free goes to whoever asks, up to equal
        shares of what all leases want.
        """
        with self._lock:
            now = self._clock()
            self._holders = {
                name: holder
                for name, holder in self._holders.items()
                if name == lease_id or now - holder.heard_at < self._lost_seconds
            }
            if not n_held and not n_wanted:
                self._holders.pop(lease_id, None)
                return 0
            self._holders[lease_id] = _Holder(n_held, n_wanted, now)
            n_others = sum(h.n_held for name, h in self._holders.items() if name != lease_id)
            n_allowed = max(0, min(self._share(lease_id), self._at_once - n_others))
            self._holders[lease_id] = _Holder(max(n_held, n_allowed), n_wanted, now)
            return n_allowed

    def _share(self, lease_id: str) -> int:
        """An equal share, with what others leave of theirs; the oldest lease gets what is over."""
        oldest_last = reversed(self._holders.items())
        by_wanted = sorted(oldest_last, key=lambda item: item[1].n_wanted)
        n_left = self._at_once
        for position, (name, holder) in enumerate(by_wanted):
            share = min(holder.n_wanted, n_left // (len(by_wanted) - position))
            if name == lease_id:
                return share
            n_left -= share
        raise AssertionError("a lease is among those that the run knows")


class Lease:
    """The permits of one piece of work. Guarded by the lock of the requests that it bounds."""

    def __init__(self, n_permits: int, changed: threading.Condition) -> None:
        self.n_permits = n_permits
        """Requests that may be under way."""
        self.in_flight = 0
        self.n_waiting = 0
        """Requests that wait to go out."""
        self.is_over = False
        """Whether nobody waits for answers any more."""
        self.failure: Exception | None = None
        """Why there are no permits any more."""
        self._changed = changed
        self._n_wanted = 0
        self._n_asked_for = 0

    @property
    def has_permit(self) -> bool:
        """Whether another request may start now."""
        return self.in_flight < self.n_permits

    def want(self, n_requests: int) -> None:
        """Note how many requests could be under way now, those included that are."""
        if n_requests > self._n_wanted:
            self._n_wanted = n_requests
            self._changed.notify_all()

    def end(self) -> None:
        """Wake whoever waits: no request goes out any more."""
        with self._changed:
            self.is_over = True
            self._changed.notify_all()

    def renew(self, exchange: Exchange) -> None:
        """Exchange permits until the work and its requests have ended; needs a thread."""
        lease_id = uuid.uuid4().hex
        while True:
            with self._changed:
                self._changed.wait_for(self._has_news, EXCHANGE_SECONDS)
                is_last = self.is_over and not self.in_flight
                n_wanted = 0 if self.is_over else self._n_wanted
                self.n_permits = min(self.n_permits, n_wanted)
                n_held = max(self.n_permits, self.in_flight)
                self._n_asked_for, self._n_wanted = n_wanted, min(n_wanted, self.in_flight)
            try:
                n_permits = exchange(lease_id, n_held, n_wanted)
            except Exception as error:  # noqa: BLE001  # of whatever carries it; raised by requests
                with self._changed:
                    self.failure = error
                    self._changed.notify_all()
                return
            if is_last:
                return
            with self._changed:
                self.n_permits = n_permits
                self._changed.notify_all()

    def _has_news(self) -> bool:
        """Whether there is something to say before the next exchange is due."""
        is_done = self.is_over and not self.in_flight
        return is_done or (not self.is_over and self._n_wanted > self._n_asked_for)


_exchange_of_process: Exchange | None = None


@contextmanager
def permitted_by(exchange: Exchange | None) -> Iterator[None]:
    """Have every request of this process to a server take a permit of a run's, in whichever thread
    it is made; None: each encoder keeps to its own ``at_once``."""
    global _exchange_of_process
    before, _exchange_of_process = _exchange_of_process, exchange
    try:
        yield
    finally:
        _exchange_of_process = before


@contextmanager
def leased(at_once: int, changed: threading.Condition) -> Iterator[Lease]:
    """Permits for the requests of this context, of the run's where this process belongs to one."""
    exchange = _exchange_of_process
    lease = Lease(at_once if exchange is None else 0, changed)
    if exchange is not None:
        name = "embedlake-permits"
        threading.Thread(target=lease.renew, args=[exchange], name=name, daemon=True).start()
    try:
        yield lease
    finally:
        lease.end()
