"""One run at a time: who has the lock, who waits, and what a crashed run leaves behind."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from embedding_core.errors import LakeError, Locked
from embedding_core.lake import lock
from embedding_core.lake.lock import locked
from embedding_core.lake.table import Lake, Table
from tests.s3 import S3Server


@pytest.fixture(params=["local", "s3"])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> Table:
    if request.param == "local":
        return Table(Lake.open(str(tmp_path)), "t")
    s3: S3Server = request.getfixturevalue("s3")
    return Table(Lake.open(f"s3://{s3.bucket}/{tmp_path.name}", s3.storage), "t")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hearts that beat every 20 ms and are given up after 600."""
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.02)
    monkeypatch.setattr(lock, "EXPIRY_SECONDS", 0.6)
    monkeypatch.setattr(lock, "POLL_SECONDS", 0.01)


def die(table: Table) -> lock.Lock:
    """A run that took the lock and was killed."""
    return lock._acquire(table, "lock", "dead run", 0)


def test_locked_while_another_holds_it_names_the_holder(table: Table) -> None:
    with (
        locked(table, "first run", 0),
        pytest.raises(Locked, match=r"first run \(host .*\) is working"),
    ):
        lock._acquire(table, "lock", "second run", 0)


def test_locked_build_goes_on_beside_a_run_but_not_beside_another_build(table: Table) -> None:
    with locked(table, "run", 0), locked(table, "first build", 0, kind="build") as build:
        build.check()
        with pytest.raises(
            Locked,
            match=r"first build \(host .*, process \d+, since .*\) is building",
        ):
            lock._acquire(table, "build", "second build", 0)


def test_locked_again_after_it_was_given_back(table: Table) -> None:
    for _ in range(3):
        with locked(table, "run", 0) as held:
            held.check()
    assert len(lock._numbers(table, "lock")) == 1


def test_locked_waits_for_the_holder_to_end(table: Table) -> None:
    first_ended = threading.Event()

    def second() -> bool:
        with locked(table, "second run", 60):
            return first_ended.is_set()

    with ThreadPoolExecutor() as pool:
        with locked(table, "first run", 0):
            waiting = pool.submit(second)
            with pytest.raises(Locked):
                lock._acquire(table, "lock", "third run", 0.1)
            first_ended.set()
        assert waiting.result()


def test_locked_lock_of_a_killed_run_is_taken_over_whatever_the_time_of_day(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = die(table)
    times = iter(range(10**9, 0, -(10**6)))
    monkeypatch.setattr(time, "time", lambda: float(next(times)))  # every look goes back ten days
    started = time.monotonic()
    with locked(table, "run", 0):
        assert time.monotonic() - started >= lock.EXPIRY_SECONDS
        with pytest.raises(LakeError, match="another run took over"):
            dead.check()


def test_locked_by_many_at_once_one_has_it_at_a_time(tmp_path: Path) -> None:
    table = Table(Lake.open(str(tmp_path)), "t")
    inside = [0, 0]

    def work(number: int) -> None:
        with locked(table, f"run {number}", 60):
            inside[0] += 1
            inside[1] = max(inside)
            inside[0] -= 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert inside == [0, 1]


def test_locked_record_that_is_not_ours_expires(tmp_path: Path) -> None:
    table = Table(Lake.open(str(tmp_path)), "t")
    folder = tmp_path / "_embedlake" / "t" / "lock"
    folder.mkdir(parents=True)
    (folder / "7.json").write_bytes(b"\xff[")
    with locked(table, "run", 0) as held:
        assert held.number == 8


def test_locked_in_a_read_only_lake_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", read_only)
    with (
        pytest.raises(LakeError, match=r"Read-only file system.*make it writable"),
        locked(Table(Lake.open(str(tmp_path)), "t"), "run", 0),
    ):
        pass
