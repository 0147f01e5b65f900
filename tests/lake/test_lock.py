"""One run at a time: who has the lock, who waits, and what a crashed run leaves behind."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from embedding_core.errors import LakeError, Locked
from embedding_core.lake import lock
from embedding_core.lake.lock import Lock, Timing, acquire
from embedding_core.lake.table import Lake, Table
from embedding_core.store.layout import LockKind, lock_folder
from embedding_core.store.storage import filesystem
from tests.s3 import S3Server

QUICK = Timing(beat=0.02, expiry=0.6, poll=0.01)


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.server)])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> Table:
    if request.param == "local":
        return Table(Lake.open(str(tmp_path)), "t")
    s3: S3Server = request.getfixturevalue("s3")
    return Table(Lake.open(f"s3://{s3.bucket}/{tmp_path.name}", s3.storage), "t")


def acquired(table: Table, kind: LockKind, holder: str, wait_seconds: float = 0.0) -> Lock:
    """A lock whose heart does not beat: its holder was killed."""
    return acquire(table, kind, holder, wait_seconds, QUICK)


def locked(
    table: Table, holder: str, wait_seconds: float = 0.0, kind: LockKind = "lock"
) -> AbstractContextManager[Lock]:
    return lock.locked(table, holder, wait_seconds, kind, QUICK)


def test_locked_while_another_holds_it_names_the_holder(table: Table) -> None:
    with (
        locked(table, "first run", 0),
        pytest.raises(Locked, match=r"first run \(host .*\) is working"),
    ):
        acquired(table, "lock", "second run")


def test_locked_build_goes_on_beside_a_run_but_not_beside_another_build(table: Table) -> None:
    with locked(table, "run", 0), locked(table, "first build", 0, kind="build") as build:
        build.check()
        with pytest.raises(
            Locked,
            match=r"first build \(host .*, process \d+, since .*\) is building",
        ):
            acquired(table, "build", "second build")


def test_locked_again_after_it_was_given_back(table: Table) -> None:
    for _ in range(3):
        with locked(table, "run", 0) as ours:
            ours.check()
    folder = lock_folder(table.lake.uri, table.name, "lock")
    assert len(filesystem(folder, table.lake.storage).ls(folder)) == 1


def test_locked_waits_for_the_holder_to_end(table: Table) -> None:
    first_ended = threading.Event()

    def second() -> bool:
        with locked(table, "second run", 60):
            return first_ended.is_set()

    with ThreadPoolExecutor() as pool:
        with locked(table, "first run", 0):
            waiting = pool.submit(second)
            with pytest.raises(Locked):
                acquired(table, "lock", "third run", 0.1)
            first_ended.set()
        assert waiting.result()


@pytest.mark.slow
def test_locked_lock_of_a_killed_run_is_taken_over_whatever_the_time_of_day(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = acquired(table, "lock", "dead run")
    times = iter(range(10**9, 0, -(10**6)))
    monkeypatch.setattr(time, "time", lambda: float(next(times)))  # every look goes back ten days
    started = time.monotonic()
    with locked(table, "run", 0):
        assert time.monotonic() - started >= QUICK.expiry
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


@pytest.mark.slow
def test_locked_record_that_is_not_ours_expires(tmp_path: Path) -> None:
    table = Table(Lake.open(str(tmp_path)), "t")
    folder = tmp_path / "_embedlake" / "t" / "lock"
    folder.mkdir(parents=True)
    (folder / "7.json").write_bytes(b"\xff[")
    with locked(table, "run", 0) as ours:
        assert ours.number == 8


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
