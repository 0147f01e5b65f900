"""One run at a time on a table: numbered records beside it, made so that only one run can win.

A table has three such locks: one for runs that write rows, one for builds of a space, which go on
beside them, and one for training a vector index, during which no space is switched or retired.

A record ``<number>.json`` is created only if nobody has created it, and the highest number is the
holder. The holder rewrites its record every few seconds. A run that waits watches the record with
its own steady clock. It takes over with the next number when the record says that it was given
back, or has not changed for ``Timing.expiry``. So no machine's time of day matters, and a killed
run delays the next one by that long. A holder that was taken for dead sees a higher number and
stops. Beyond that, commits themselves stay right with two runs at once (see ``lake.rows.commit``).
"""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pyarrow as pa
from botocore.exceptions import BotoCoreError

from embedding_core.errors import EmbedlakeError, LakeError, Locked, words
from embedding_core.lake.faults import store_faults
from embedding_core.lake.snapshot import Snapshot
from embedding_core.lake.staging import check_no_link, staging_folder
from embedding_core.lake.table import Table
from embedding_core.store import storage
from embedding_core.store.conditional_put import check_writable, ignores_conditions
from embedding_core.store.layout import LockKind, lock_folder
from embedding_core.store.untrusted.json_text import read_json

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Timing:
    """How fast a lock's heart beats, in seconds."""

    beat: float = 5.0
    """The holder rewrites its record this often."""
    expiry: float = 30.0
    """A record that stays the same this long belongs to a dead run: it missed six beats."""
    poll: float = 1.0
    """A run that waits looks this often."""


TIMING = Timing()
"""The timing of every lock that is not given another."""
SHOWN_CHARACTERS = 200
"""Most of a value of a record that a message shows."""
_RECORD_NAME = re.compile(r"([0-9]{1,200})\.json")
"""The name of a lock's record."""

DOING: dict[LockKind, str] = {
    "lock": "working on",
    "build": "building a space of",
    "index": "training an index or switching the spaces of",
}
"""What the holder of each lock does. The keys are the folders of the records too."""


@dataclass(slots=True)
class Lock:
    """A table's lock while this process holds it."""

    table: Table
    kind: LockKind
    number: int
    holder: str
    token: str
    timing: Timing
    since: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    """When it was taken, ISO 8601, UTC."""
    beats: int = 0
    stopped: threading.Event = field(default_factory=threading.Event)

    def check(self) -> None:
        """Raise ``LakeError`` when another run has taken over. Call it before a commit."""
        if _highest(self.table, self.kind) > self.number:
            raise LakeError(
                f"another run took over table {self.table.name!r} in {self.table.lake.uri}, "
                f"because this one did not answer for {self.timing.expiry:.0f} s; what was "
                "committed stays, run the same command again"
            )

    def renew(self) -> None:
        """Rewrite the record: one beat. A failure is logged; the next beat may get through."""
        self.beats += 1
        try:
            _write(self, _record(self))
        except (OSError, BotoCoreError) as error:
            log.warning("the lock of %s could not be renewed: %s", self.table.uri, words(error))


@contextmanager
def locked(
    table: Table,
    holder: str,
    wait_seconds: float,
    kind: LockKind = "lock",
    timing: Timing | None = None,
) -> Iterator[Lock]:
    """Hold one of the table's locks; its heart beats in another thread.

    Waits at most ``wait_seconds`` for a live holder, then raises ``Locked``. Waits for a dead
    holder as long as it takes to be sure. Raises ``LakeError``, and writes nothing that stays,
    where the store cannot keep two writers apart.
    """
    lock = acquire(table, kind, holder, wait_seconds, timing or TIMING)
    heart = threading.Thread(target=_beat, args=(lock,), name="embedlake-lock", daemon=True)
    heart.start()
    try:
        yield lock
    finally:
        lock.stopped.set()
        heart.join()
        _release(lock)


CREATION_WAIT_SECONDS = 60.0
"""A writer waits this long for another that makes the table."""


def made_by_one(table: Table, arrow_schema: pa.Schema) -> Snapshot:
    """The newest version of a table that several may write at once; the first makes it, alone:
    where several made it, rows of the first were lost."""
    if snapshot := table.open_if_made():
        return snapshot
    with locked(table, "the first writer", CREATION_WAIT_SECONDS):
        return table.ensure(arrow_schema)


def try_lock_and_release(table: Table, kind: LockKind) -> bool:
    """Whether a lock was free. Takes it for a moment; waits up to 30 s after a holder's crash."""
    try:
        with locked(table, "a look", 0, kind):
            return True
    except Locked:
        return False


def holder_of(table: Table, kind: LockKind = "lock") -> str | None:
    """Who holds a lock, or died with it; None when it is free. Only reads."""
    newest = _newest(table, kind)
    return None if newest is None or _was_given_back(newest[1]) else _holder(newest[1])


@dataclass(frozen=True, slots=True)
class HeldLock:
    """A lock that somebody holds, or died with."""

    kind: LockKind
    holder: str
    since: float
    """Seconds since the epoch, by the holder's clock; likewise the next."""
    renewed: float
    """The holder's last beat."""


def held_lock(table: Table, kind: LockKind) -> HeldLock | None:
    """Who holds a lock and since when; None when it is free, was taken this very moment, or has a
    record that does not say."""
    newest = _newest(table, kind)
    content = {} if newest is None else _content(newest[1])
    if content.get("given_back") is not False or "holder" not in content:
        return None
    try:
        since, renewed = (_seconds(content.get(name)) for name in ("since", "renewed"))
    except (ValueError, OverflowError):
        return None
    return HeldLock(kind, _shown(content["holder"]), since, renewed)


def _seconds(moment: object) -> float:
    """Seconds since the epoch of a time in ISO 8601. Raises ``ValueError``, ``OverflowError``."""
    return datetime.fromisoformat(str(moment)).timestamp()


def acquire(table: Table, kind: LockKind, holder: str, wait_seconds: float, timing: Timing) -> Lock:
    """Take a lock whose heart does not beat yet; see ``locked``."""
    check_no_link(table, lock_folder(table.lake.uri, table.name, kind))
    check_no_link(table, staging_folder(table))
    started = unchanged_since = time.monotonic()
    record: tuple[int, bytes] | None = None
    n_changes = 0
    while True:
        # 1. Read the record with the highest number, and note when it changed.
        newest = _newest(table, kind)
        now = time.monotonic()
        if newest != record:
            n_changes += record is not None
            record, unchanged_since = newest, now
        # 2. The lock is free if there is no record, if it was given back, or if its holder missed
        #    so many beats that it must be dead. Then try to create the next number: only one of
        #    all who try succeeds, the others start again at step 1.
        is_dead = now - unchanged_since >= timing.expiry
        if record is None or _was_given_back(record[1]) or is_dead:
            if record is None:  # this may be the first write to the lake
                check_writable(table.lake.uri, table.lake.storage)
            number = (record[0] if record else 0) + 1
            lock = Lock(table, kind, number, holder, uuid.uuid4().hex, timing)
            if _create_highest(lock):
                _check_exclusive(lock)
                return lock
            continue
        # 3. A record that changed before our eyes has a live holder, for which we wait no longer
        #    than asked. Until it changes we cannot know, so we wait for a beat or for its expiry.
        if n_changes and now - started >= wait_seconds:
            raise Locked(
                f"{_holder(record[1])} is {DOING[kind]} table {table.name!r} in {table.lake.uri}; "
                "nothing was changed",
                action="wait",
            )
        time.sleep(timing.poll)


def _create_highest(lock: Lock) -> bool:
    """Create the lock's record and remove lower ones; whether ours is the highest."""
    if not _create(lock, _record(lock)):
        return False
    numbers = _numbers(lock.table, lock.kind)
    if max(numbers) > lock.number:  # the listing that our number comes from was out of date
        _remove(lock, lock.number)
        return False
    for number in numbers:
        if number < lock.number:
            _remove(lock, number)
    return True


def _check_exclusive(lock: Lock) -> None:
    """Raise ``LakeError`` when the record could be created once more: the lake may have come to a
    store that ignores conditions long after its first write."""
    lake = lock.table.lake
    if not storage.is_local(lake.uri) and _create(lock, _record(lock)):
        _release(lock)
        raise ignores_conditions(lake.uri)


def _beat(lock: Lock) -> None:
    while not lock.stopped.wait(lock.timing.beat):
        lock.renew()


def _release(lock: Lock) -> None:
    """Say in the record that the lock is free. If that fails, the lock expires."""
    try:
        if _highest(lock.table, lock.kind) == lock.number:
            _write(lock, _record(lock, given_back=True))
    except (OSError, BotoCoreError, EmbedlakeError) as error:
        log.warning(
            "the lock of %s could not be given back (%s): the next run waits %.0f s",
            lock.table.uri, words(error), lock.timing.expiry,
        )  # fmt: skip


def _record(lock: Lock, given_back: bool = False) -> bytes:
    content = {
        "holder": lock.holder,
        "host": socket.gethostname(),
        "process": os.getpid(),
        "since": lock.since,
        "renewed": datetime.now(UTC).isoformat(timespec="seconds"),
        "token": lock.token,
        "beats": lock.beats,
        "given_back": given_back,
    }
    return json.dumps(content).encode()


def _was_given_back(record: bytes) -> bool:
    return bool(_content(record).get("given_back"))


def _holder(record: bytes) -> str:
    """Who holds the lock: the run, its host and process, and since when."""
    content = _content(record)
    if "holder" not in content:
        return "another run"
    host, process, since = (_shown(content.get(name)) for name in ("host", "process", "since"))
    return f"{_shown(content['holder'])} (host {host}, process {process}, since {since})"


def _shown(value: object) -> str:
    """A value of a record, which anybody may have written, as a terminal can show it."""
    text = str(value)[:SHOWN_CHARACTERS]
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


def _content(record: bytes) -> dict[str, object]:
    try:
        content = read_json(record)
    except ValueError:
        return {}  # not embedlake's, or half written: it expires like any other
    return content if isinstance(content, dict) else {}


def _path(table: Table, kind: LockKind, number: int) -> str:
    return storage.join(lock_folder(table.lake.uri, table.name, kind), f"{number}.json")


def _numbers(table: Table, kind: LockKind) -> list[int]:
    folder = lock_folder(table.lake.uri, table.name, kind)
    with store_faults(f"looking at the lock of {table.uri}"):
        names = storage.names_in(folder, table.lake.storage)
    return [int(record[1]) for record in map(_RECORD_NAME.fullmatch, names) if record]


def _highest(table: Table, kind: LockKind) -> int:
    return max(_numbers(table, kind), default=0)


def _newest(table: Table, kind: LockKind) -> tuple[int, bytes] | None:
    """The highest record with its content; None without a record."""
    number = _highest(table, kind)
    if not number:
        return None
    with store_faults(f"reading the lock of {table.uri}"):
        try:
            return number, storage.read_bytes(_path(table, kind, number), table.lake.storage)
        except FileNotFoundError:  # another run has just replaced it
            return number, b""


def _create(lock: Lock, record: bytes) -> bool:
    path = _path(lock.table, lock.kind, lock.number)
    with store_faults(f"writing the lock of {lock.table.uri}"):
        return storage.create_bytes(path, record, lock.table.lake.storage)


def _write(lock: Lock, record: bytes) -> None:
    path = _path(lock.table, lock.kind, lock.number)
    storage.write_bytes(path, record, lock.table.lake.storage)


def _remove(lock: Lock, number: int) -> None:
    path = _path(lock.table, lock.kind, number)
    try:
        storage.filesystem(path, lock.table.lake.storage).rm_file(path)
    except (OSError, BotoCoreError):
        return  # a higher record stands beside it, so it says nothing
