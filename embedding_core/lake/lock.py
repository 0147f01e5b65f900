"""One run at a time on a table: numbered records beside it, made so that only one can win.

A table has three such locks: one for runs that write rows, one for builds of a space, which go on
beside them, and one for training a vector index, which keeps spaces where they are for that time.

A record ``<number>.json`` is created only if nobody has created it, and the highest number is the
holder. The holder rewrites its record every few seconds. Whoever waits watches the record with its
own steady clock and takes over with the next number when it has not changed for
``EXPIRY_SECONDS``, or says that it was given back: no machine's time of day matters, and a run that
was killed delays the next one by that long. A holder that was taken for dead finds a higher number
and stops. Beyond that, commits themselves stay right with two runs at once (see ``commit``).
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from botocore.exceptions import BotoCoreError

from embedding_core.errors import EmbedlakeError, LakeError, Locked, words
from embedding_core.lake.faults import store_faults
from embedding_core.lake.table import Table
from embedding_core.store import storage
from embedding_core.store.conditional_put import check_conditional_put

log = logging.getLogger(__name__)

BEAT_SECONDS = 5.0
EXPIRY_SECONDS = 30.0
"""A record that stays the same this long belongs to a run that is gone: six beats were missed."""
POLL_SECONDS = 1.0

Kind = Literal["lock", "build", "index"]
"""``lock``: writes rows; ``build``: fills a vector column; ``index``: trains a vector index, or
switches spaces. Also the folder of the records."""
DOING: dict[Kind, str] = {
    "lock": "working on",
    "build": "building a space of",
    "index": "training an index or switching the spaces of",
}


@dataclass(slots=True)
class Lock:
    """A table's lock, held."""

    table: Table
    kind: Kind
    number: int
    holder: str
    token: str
    since: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    """When it was taken, ISO 8601, UTC."""
    beats: int = 0
    stopped: threading.Event = field(default_factory=threading.Event)

    def check(self) -> None:
        """Raise ``LakeError`` when another run has taken over; to be asked before a commit."""
        if _highest(self.table, self.kind) > self.number:
            raise LakeError(
                f"another run took over table {self.table.name!r} in {self.table.lake.uri}, "
                f"because this one did not answer for {EXPIRY_SECONDS:.0f} s; what was committed "
                "stays, run the same command again"
            )


@contextmanager
def locked(table: Table, holder: str, wait_seconds: float, kind: Kind = "lock") -> Iterator[Lock]:
    """Hold one of the table's locks; its heart beats in a thread of its own.

    Waits for a holder that is alive ``wait_seconds`` at most, then raises ``Locked``. A holder that
    is gone is waited for as long as it takes to be sure. Raises ``LakeError``, and writes nothing
    that stays, where the store cannot keep two writers apart.
    """
    lock = _acquire(table, kind, holder, wait_seconds)
    heart = threading.Thread(target=_beat, args=(lock,), name="embedlake-lock", daemon=True)
    heart.start()
    try:
        yield lock
    finally:
        lock.stopped.set()
        heart.join()
        _release(lock)


def is_held(table: Table, kind: Kind) -> bool:
    """Whether someone alive holds a lock; half a minute to be sure when its holder died."""
    try:
        with locked(table, "a look", 0, kind):
            return False
    except Locked:
        return True


def _acquire(table: Table, kind: Kind, holder: str, wait_seconds: float) -> Lock:
    started = time.monotonic()
    seen: tuple[int, bytes] | None = None
    seen_at = started
    beats_seen = 0
    while True:
        found = _newest(table, kind)
        now = time.monotonic()
        if found != seen:
            beats_seen += seen is not None
            seen, seen_at = found, now
        if found is None or _given_back(found[1]) or now - seen_at >= EXPIRY_SECONDS:
            if found is None:  # the first write to this lake may be ours
                check_conditional_put(table.lake.uri, table.lake.storage)
            number = (found[0] if found else 0) + 1
            lock = Lock(table, kind, number, holder, uuid.uuid4().hex)
            if _created(lock):
                return lock
            continue
        if beats_seen and now - started >= wait_seconds:
            raise Locked(
                f"{_holder(found[1])} is {DOING[kind]} table {table.name!r} in {table.lake.uri}; "
                "run the same command again when it has ended, or wait longer "
                "(EMBEDLAKE_LOCK_WAIT_SECONDS)"
            )
        time.sleep(POLL_SECONDS)


def _created(lock: Lock) -> bool:
    """Whether the record is ours and the highest; lower ones are cleared away."""
    if not _create(lock, _record(lock)):
        return False
    numbers = _numbers(lock.table, lock.kind)
    if max(numbers) > lock.number:  # we looked at a listing that was long out of date
        _remove(lock, lock.number)
        return False
    for number in numbers:
        if number < lock.number:
            _remove(lock, number)
    return True


def _beat(lock: Lock) -> None:
    while not lock.stopped.wait(BEAT_SECONDS):
        lock.beats += 1
        try:
            _write(lock, _record(lock))
        except (OSError, BotoCoreError) as error:
            # The next beat may get through; if not, `check` tells.
            log.warning("the lock of %s could not be renewed: %s", lock.table.uri, words(error))


def _release(lock: Lock) -> None:
    """Say that the lock is free; where that fails, it expires."""
    try:
        if _highest(lock.table, lock.kind) == lock.number:
            _write(lock, _record(lock, given_back=True))
    except (OSError, BotoCoreError, EmbedlakeError) as error:
        log.warning(
            "the lock of %s could not be given back (%s): the next run waits %.0f s",
            lock.table.uri, words(error), EXPIRY_SECONDS,
        )  # fmt: skip


def _record(lock: Lock, given_back: bool = False) -> bytes:
    content = {
        "holder": lock.holder,
        "host": socket.gethostname(),
        "process": os.getpid(),
        "since": lock.since,
        "token": lock.token,
        "beats": lock.beats,
        "given_back": given_back,
    }
    return json.dumps(content).encode()


def _given_back(record: bytes) -> bool:
    return bool(_content(record).get("given_back"))


def _holder(record: bytes) -> str:
    """Who holds the lock: the run, its host and process, and since when."""
    content = _content(record)
    if "holder" not in content:
        return "another run"
    return (
        f"{content['holder']} (host {content.get('host')}, process {content.get('process')}, "
        f"since {content.get('since')})"
    )


def _content(record: bytes) -> dict[str, object]:
    try:
        content = json.loads(record)
    except ValueError:
        return {}  # not ours, or half written: it expires like any other
    return content if isinstance(content, dict) else {}


def _folder(table: Table, kind: Kind) -> str:
    return storage.join(table.lake.uri, "_embedlake", table.name, kind)


def _path(table: Table, kind: Kind, number: int) -> str:
    return storage.join(_folder(table, kind), f"{number}.json")


def _numbers(table: Table, kind: Kind) -> list[int]:
    folder = _folder(table, kind)
    fs = storage.filesystem(folder, table.lake.storage)
    with store_faults(f"looking at the lock of {table.uri}"):
        if not fs.exists(folder):
            return []
        names = [str(path).rpartition("/")[2] for path in fs.ls(folder, detail=False)]
    return [int(name[:-5]) for name in names if name.endswith(".json") and name[:-5].isdigit()]


def _highest(table: Table, kind: Kind) -> int:
    return max(_numbers(table, kind), default=0)


def _newest(table: Table, kind: Kind) -> tuple[int, bytes] | None:
    """The highest record with its content; None when there is none."""
    number = _highest(table, kind)
    if not number:
        return None
    with store_faults(f"reading the lock of {table.uri}"):
        try:
            return number, storage.read_bytes(_path(table, kind, number), table.lake.storage)
        except FileNotFoundError:  # its holder was followed by another just now
            return number, b""


def _create(lock: Lock, record: bytes) -> bool:
    path = _path(lock.table, lock.kind, lock.number)
    with store_faults(f"writing the lock of {lock.table.uri}"):
        return storage.create_bytes(path, record, lock.table.lake.storage)


def _write(lock: Lock, record: bytes) -> None:
    path = _path(lock.table, lock.kind, lock.number)
    storage.write_bytes(path, record, lock.table.lake.storage)


def _remove(lock: Lock, number: int) -> None:
    fs = storage.filesystem(_folder(lock.table, lock.kind), lock.table.lake.storage)
    try:
        fs.rm_file(_path(lock.table, lock.kind, number))
    except (OSError, BotoCoreError):
        return  # it is lower than another, so it says nothing
