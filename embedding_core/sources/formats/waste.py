"""A limit on useless lines: a small file can hold a billion blank lines or bad records.

A compressed file grows a thousandfold, so a limit on its size does not bound the time to read it.
"""

from __future__ import annotations

from dataclasses import dataclass

from embedding_core.errors import RejectedInput
from embedding_core.plurals import counted
from embedding_core.reasons import MOSTLY_WASTE

MOST_WASTED = 1_000_000
"""Useless lines or rows that any file may have: about twenty seconds of work."""
MOST_WASTED_BYTES = 1024 * 1024 * 1024
"""Bytes that these lines may have."""
WASTED_PER_USED = 10
"""Useless lines, rows or bytes that a file may have besides, for each useful one."""


@dataclass(slots=True)
class Waste:
    """Counts of useful and useless records so far."""

    what: str
    """The name of what is counted, in the plural."""
    used: int = 0
    used_bytes: int = 0
    wasted: int = 0
    wasted_bytes: int = 0

    def use(self, n_bytes: int = 0, n: int = 1) -> None:
        """Count ``n`` useful records."""
        self.used += n
        self.used_bytes += n_bytes

    def waste(self, n: int = 1, n_bytes: int = 0) -> None:
        """Count ``n`` useless records. Raises ``RejectedInput`` when there are too many."""
        self.wasted += n
        self.wasted_bytes += n_bytes
        if self.wasted > MOST_WASTED + WASTED_PER_USED * self.used:
            self._give_up(f"{self.wasted:,} {self.what}", f"{MOST_WASTED:,}")
        if self.wasted_bytes > MOST_WASTED_BYTES + WASTED_PER_USED * self.used_bytes:
            self._give_up(
                f"{counted(self.wasted_bytes, 'byte')} of {self.what}", f"{MOST_WASTED_BYTES:,}"
            )

    def _give_up(self, wasted: str, limit: str) -> None:
        raise RejectedInput(
            MOSTLY_WASTE,
            f"{wasted} beside {self.used:,} of use; a file may have {limit} and "
            f"{WASTED_PER_USED} times what is of use; clean the file, or correct source.text and "
            "source.id if they do not fit it",
        )
