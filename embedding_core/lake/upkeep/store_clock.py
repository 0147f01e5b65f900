"""Compare this machine's clock with the store's, by which the age of its files counts."""

from __future__ import annotations

import contextlib
import uuid
from datetime import UTC, datetime, timedelta

from embedding_core.errors import LakeError
from embedding_core.lake.faults import store_faults
from embedding_core.lake.table import Table
from embedding_core.store import storage
from embedding_core.store.layout import probe_path

MOST_AHEAD = timedelta(minutes=10)
"""Versions are kept for an hour at least, and what a run has not committed for a week."""


def check_clock(table: Table, now: datetime | None = None) -> None:
    """Raise ``LakeError`` when this machine's clock is ahead of the store's.

    What a live run has just written would look like what a dead run left long ago. ``now``
    default: the clock.
    """
    lake = table.lake
    probe = probe_path(lake.uri, uuid.uuid4().hex)
    fs = storage.filesystem(probe, lake.storage)
    with store_faults(f"looking at the clock of {lake.uri}"):
        try:
            storage.write_bytes(probe, b"1", lake.storage)
            written_at: datetime = fs.modified(probe)
        finally:
            with contextlib.suppress(FileNotFoundError):
                fs.rm_file(probe)
    ahead = (now or datetime.now(UTC)) - written_at
    if ahead > MOST_AHEAD:
        raise LakeError(
            f"this machine's clock is {ahead} ahead of that of {lake.uri}, at most {MOST_AHEAD} is "
            "allowed: what runs are writing would look old. Nothing old was removed; set the clock "
            "by NTP"
        )
