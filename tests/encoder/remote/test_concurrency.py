"""How many requests a server gets at once, at a clock that the test moves."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from embedding_core.encoder.remote.concurrency import Concurrency


@dataclass
class Simulated:
    """A server of some workers, each of which takes a second; more requests wait."""

    n_workers: int
    latency: float = 0.0
    most: int = 64
    now: float = 0.0
    concurrency: Concurrency = field(init=False)

    def __post_init__(self) -> None:
        self.concurrency = Concurrency(self.most, lambda: self.now)

    def rounds(self, n_rounds: int) -> None:
        """Rounds of as many requests as may be under way, all of which end together."""
        for _ in range(n_rounds):
            n_requests = 0
            while self.concurrency.has_room:
                self.concurrency.started()
                n_requests += 1
            self.now += max(1.0, n_requests / self.n_workers) + self.latency
            for _ in range(n_requests):
                self.concurrency.answered(1_000)


@pytest.mark.parametrize("n_workers", [1, 4, 16])
def test_limit_grows_to_what_keeps_the_server_busy_and_not_far_beyond(n_workers: int) -> None:
    server = Simulated(n_workers)
    server.rounds(30)
    assert n_workers <= server.concurrency.limit <= max(4, 4 * n_workers)


def test_limit_grows_further_when_answers_take_longer() -> None:
    near, far = Simulated(4), Simulated(4, latency=3.0)
    near.rounds(60)
    far.rounds(60)
    assert far.concurrency.limit > near.concurrency.limit


def test_limit_never_exceeds_the_most() -> None:
    server = Simulated(n_workers=1_000, most=5)
    server.rounds(40)
    assert server.concurrency.limit == 5


def test_limit_of_a_server_with_company_falls_and_comes_back() -> None:
    server = Simulated(n_workers=8)
    server.rounds(40)
    before = server.concurrency.limit
    for _ in range(3):
        server.concurrency.overloaded(server.concurrency.started())
    assert server.concurrency.limit == max(1, before // 8)
    server.rounds(200)
    assert server.concurrency.limit >= 8


def test_requests_that_fail_together_halve_once() -> None:
    server = Simulated(n_workers=100)
    server.rounds(20)
    before = server.concurrency.limit
    tickets = [server.concurrency.started() for _ in range(before)]
    for ticket in tickets:
        server.concurrency.overloaded(ticket)
    assert server.concurrency.limit == before // 2
    assert server.concurrency.in_flight == 0


def test_pause_that_a_server_asks_for_leaves_no_room_until_it_is_over() -> None:
    server = Simulated(n_workers=1)
    server.concurrency.overloaded(server.concurrency.started(), pause_seconds=5.0)
    assert server.concurrency.seconds_paused == 5.0
    assert not server.concurrency.has_room
    server.now += 5.0
    assert server.concurrency.has_room


def test_window_with_too_little_to_do_says_nothing() -> None:
    server = Simulated(n_workers=4)
    for _ in range(100):  # a request at a time, however many there may be
        server.concurrency.started()
        server.now += 1.0
        server.concurrency.answered(1_000)
    assert server.concurrency.limit == 2
