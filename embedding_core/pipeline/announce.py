"""Lines about work that takes long, said while it goes on."""

from __future__ import annotations

import time
from collections.abc import Callable

Say = Callable[[str], None]
"""Takes one line for people, such as the ``info`` of a logger."""

SILENT_SECONDS = 10.0
"""Work is silent for about this long at most."""


def silent(_line: str) -> None:
    """Say nothing."""


class Announcer:
    """Says how many of ``total`` chunks are embedded, at most once in ``SILENT_SECONDS``."""

    def __init__(self, say: Say, total: int, done: int = 0) -> None:
        self._say = say
        self._total = total
        self._first = self._done = done
        self._started = self._said_at = time.monotonic()

    def add(self, n_chunks: int) -> None:
        """Count chunks that are done."""
        self._done += n_chunks
        now = time.monotonic()
        if now - self._said_at >= SILENT_SECONDS:
            self._said_at = now
            rate = (self._done - self._first) / (now - self._started)
            self._say(f"{self._done:,} of {self._total:,} chunks embedded, {rate:,.1f} a second")
