"""Permits of a run: never more than there are, all of them in use, and none lost with a task."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence

import numpy as np
import pytest

from embedding_core.encoder.remote import concurrency, permits
from embedding_core.encoder.remote.permits import Permits, permitted_by
from embedding_core.errors import Transient
from tests.encoder.remote.stub_engine import StubEngine, stub_engine
from tests.encoder.remote.test_client import TEXTS, encoder_of

AT_ONCE = 6


class Clock:
    """A clock that stands still until it is moved."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_lease_alone_has_every_permit() -> None:
    run = Permits(32)
    assert [run.exchange("a", 0, 4), run.exchange("a", 4, 100)] == [4, 32]


def test_lease_that_comes_later_gets_its_share_when_the_first_lets_go() -> None:
    run = Permits(32)
    run.exchange("a", 0, 32)
    assert run.exchange("b", 0, 32) == 0
    assert run.exchange("a", 32, 32) == 16
    assert run.exchange("b", 0, 32) == 0  # requests of the first are still under way
    run.exchange("a", 16, 32)
    assert run.exchange("b", 0, 32) == 16


def test_share_that_a_lease_does_not_want_goes_to_the_others() -> None:
    run = Permits(32)
    assert [run.exchange("a", 0, 2), run.exchange("b", 0, 32)] == [2, 30]
    run.exchange("a", 0, 0)
    assert run.exchange("b", 30, 32) == 32


def test_more_leases_than_permits_are_served_in_their_order() -> None:
    run = Permits(1)
    assert [run.exchange(name, 0, 5) for name in "abc"] == [1, 0, 0]
    run.exchange("a", 0, 0)
    assert [run.exchange(name, 0, 5) for name in "bc"] == [1, 0]


def test_permits_of_a_lease_that_is_silent_come_back() -> None:
    clock = Clock()
    run = Permits(4, lost_seconds=10, clock=clock)
    run.exchange("dead", 0, 4)
    clock.now = 9.0
    assert run.exchange("alive", 0, 4) == 0
    clock.now = 11.0
    assert run.exchange("alive", 0, 4) == 4


def test_lease_that_speaks_again_after_it_was_lost_gives_back_what_is_not_its_own() -> None:
    clock = Clock()
    run = Permits(4, lost_seconds=10, clock=clock)
    run.exchange("stalled", 0, 4)
    clock.now = 11.0
    assert run.exchange("other", 0, 4) == 4
    assert [run.exchange("stalled", 4, 4), run.exchange("other", 4, 4)] == [0, 0]
    run.exchange("stalled", 0, 4)
    assert [run.exchange("other", 0, 4), run.exchange("stalled", 0, 4)] == [2, 2]


@pytest.mark.parametrize("seed", range(5))
def test_permits_in_use_never_exceed_what_there_is(seed: int) -> None:
    """Leases that want, begin and end requests at random, as ``Lease`` does."""
    chance = random.Random(seed)
    at_once = chance.randint(1, 12)
    run = Permits(at_once, clock=Clock())
    allowed, in_flight = dict.fromkeys("abcd", 0), dict.fromkeys("abcd", 0)
    for _ in range(2_000):
        name = chance.choice("abcd")
        in_flight[name] = chance.randint(0, max(in_flight[name], allowed[name]))
        assert sum(in_flight.values()) <= at_once
        if chance.random() < 0.5:
            wanted = chance.choice([0, in_flight[name], 3, 20])
            allowed[name] = min(allowed[name], wanted)
            held = max(allowed[name], in_flight[name])
            allowed[name] = run.exchange(name, held, wanted)


def fast(engine: StubEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers get as many requests as they may from the beginning, and leases hear news soon."""
    monkeypatch.setattr(concurrency, "FIRST_LIMIT", 100)
    monkeypatch.setattr(permits, "EXCHANGE_SECONDS", 0.005)


def test_tasks_together_never_exceed_at_once_at_the_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Encoders of four tasks, and what each asks to describe its model."""
    with stub_engine() as engine:
        fast(engine, monkeypatch)
        with permitted_by(Permits(AT_ONCE).exchange):
            encoders = [encoder_of(engine, at_once=AT_ONCE, batch_tokens=16) for _ in range(4)]

            def work(encoder: object) -> None:
                encoder_of(engine)
                vectors.append(encoder.encode_documents(TEXTS))  # type: ignore[attr-defined]

            vectors: list[np.ndarray] = []
            threads = [threading.Thread(target=work, args=[each]) for each in encoders]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
        assert 1 < engine.most_at_once <= AT_ONCE
        for rows in vectors:
            np.testing.assert_allclose(rows, engine.vectors(TEXTS), atol=1e-6)
        assert len(vectors) == 4


def test_task_alone_has_as_many_requests_under_way_as_the_run_may(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The server answers only when all of them have come."""
    with stub_engine() as engine:
        fast(engine, monkeypatch)
        all_here = threading.Event()

        def hold(engine: StubEngine, _texts: Sequence[str]) -> None:
            if engine.most_at_once == AT_ONCE:
                all_here.set()
            assert all_here.wait(30)

        with permitted_by(Permits(AT_ONCE).exchange):
            encoder = encoder_of(engine, at_once=AT_ONCE, batch_tokens=16)
            engine.before = hold
            encoder.encode_documents(TEXTS)
        assert engine.most_at_once == AT_ONCE


def test_permits_cost_far_fewer_exchanges_than_there_are_requests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An exchange when more are wanted than before; the next regular one would come too late."""
    monkeypatch.setattr(permits, "EXCHANGE_SECONDS", 600)
    run, n_exchanges = Permits(AT_ONCE), 0

    def exchange(lease_id: str, n_held: int, n_wanted: int) -> int:
        nonlocal n_exchanges
        n_exchanges += 1
        return run.exchange(lease_id, n_held, n_wanted)

    with stub_engine() as engine, permitted_by(exchange):
        encoder = encoder_of(engine, at_once=AT_ONCE, batch_tokens=8)
        n_exchanges = 0
        encoder.encode_documents(TEXTS * 4)
        assert 1 <= n_exchanges <= AT_ONCE and len(engine.texts) > 100


def test_task_whose_permits_are_out_of_reach_says_so() -> None:
    def exchange(_lease_id: str, _n_held: int, _n_wanted: int) -> int:
        raise Transient("the actor is gone")

    with stub_engine() as engine:
        encoder = encoder_of(engine)
        with permitted_by(exchange), pytest.raises(Transient, match="the actor is gone"):
            encoder.encode_documents(TEXTS)
        assert len(encoder.encode_documents(["a"])) == 1


def test_permits_go_back_when_the_work_is_given_up() -> None:
    """A stream that nobody reads to its end."""
    run = Permits(AT_ONCE)
    with stub_engine() as engine, permitted_by(run.exchange):
        encoder = encoder_of(engine, at_once=AT_ONCE, batch_tokens=8)
        stream = encoder.encode_stream([[text] for text in TEXTS])
        next(stream)
        stream.close()
        for thread in threading.enumerate():
            if thread.name == "embedlake-permits":
                thread.join(20)
    assert run.exchange("next", 0, AT_ONCE) == AT_ONCE
