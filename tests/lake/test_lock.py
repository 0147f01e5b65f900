"""One run at a time: who has the lock, who waits, and what a crashed run leaves behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from embedding_core.errors import LakeError, Locked
from embedding_core.lake import lock
from embedding_core.lake.ledger import add_rejects, record_rejects, reject_rows
from embedding_core.lake.lock import Lock, Timing, acquire, holder_of
from embedding_core.lake.readers.feedback import Feedback, append_feedback, read_feedback
from embedding_core.lake.staging import reject_batches
from embedding_core.lake.table import Lake, Table, table_of
from embedding_core.reasons import EMPTY_TEXT
from embedding_core.records import Reject
from embedding_core.runs.embed.run import embed
from embedding_core.store.layout import LockKind, lock_folder
from embedding_core.store.storage import filesystem
from tests.driver import recipe_for, write_jsonl
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


OPINION = Feedback(datetime(2026, 1, 1, tzinfo=UTC), "words", "d0", "click")
REJECT = Reject("a.jsonl", None, 0, EMPTY_TEXT.name, "no text")


@pytest.mark.parametrize(
    "write",
    [
        lambda table: append_feedback(table, [OPINION]),
        lambda table: add_rejects(table, [REJECT], "a build"),
        lambda table: record_rejects(table, [REJECT.source_uri], (), "a run"),
    ],
    ids=["feedback", "rejects-of-a-build", "rejects-of-a-run"],
)
def test_table_of_several_writers_is_made_by_the_holder_of_its_lock_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Table], None]
) -> None:
    """Two writers that make it at once would take each other's rows out again."""
    table = Table(Lake.open(str(tmp_path)), "docs")
    real, holders = Table.create, list[str | None]()

    def create(listed: Table, *given: Any) -> Any:
        holders.append(holder_of(listed))
        return real(listed, *given)

    monkeypatch.setattr(Table, "create", create)
    write(table)
    write(table)
    assert len(holders) == 1 and str(holders[0]).startswith("the first writer")


def test_every_opinion_is_kept(tmp_path: Path) -> None:
    table = Table(Lake.open(str(tmp_path)), "docs")
    append_feedback(table, [OPINION])
    append_feedback(table, [OPINION])
    assert list(read_feedback(table)) == [OPINION, OPINION]


def test_rejects_of_a_run_and_of_a_build_that_are_the_first_are_all_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "TIMING", QUICK)
    table = Table(Lake.open(str(tmp_path)), "docs")
    rejects = [replace(REJECT, source_uri=f"{number}.jsonl") for number in range(6)]
    writers: list[Callable[[Reject], None]] = [
        lambda reject: add_rejects(table, [reject], "a build"),
        lambda reject: record_rejects(table, [reject.source_uri], reject_batches([reject]), "run"),
    ]
    with ThreadPoolExecutor(len(rejects)) as pool:
        tasks = [pool.submit(writers[n % 2], reject) for n, reject in enumerate(rejects)]
    assert [task.exception() for task in tasks] == [None] * len(rejects)
    assert sorted(reject_rows(table)["source_uri"].to_pylist()) == [
        reject.source_uri for reject in rejects
    ]


def test_ledger_is_made_before_its_rows_under_the_lock_of_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"one": "words"})
    recipe = recipe_for(tmp_path)
    real, holders = Table.create, dict[str, str | None]()

    def create(made: Table, *given: Any) -> Any:
        holders[made.name] = holder_of(table_of(recipe))
        return real(made, *given)

    monkeypatch.setattr(Table, "create", create)
    embed(recipe)
    assert holders.keys() == {"docs", "docs__files", "docs__rejects"}
    assert all(str(holder).startswith("run ") for holder in holders.values())
