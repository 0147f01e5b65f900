"""Bounds of a server: how much waits, how large a request is, how old a version may be."""

from __future__ import annotations

import os
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Limits:
    """What a server takes on at once. More is refused with a word, never queued for ever."""

    at_once: int = 256
    """Requests under way; further ones are asked to come again."""
    together: int = 64
    """Queries in one forward pass, and searches in one pass over a table."""
    searches: int = field(default_factory=lambda: max(2, os.cpu_count() or 1))
    """Threads that search tables, and as many that read documents."""
    fresh_seconds: float = 1.0
    """A table is looked at again when the last look is so long ago: promotes show after that."""
    retry_seconds: float = 10.0
    """Pause before a model that could not be loaded is tried again."""
    models: int = 8
    """Models in memory; of more, the one that was used longest ago goes."""
    body_bytes: int = 64 * 1024
    """Longest request."""
    request_seconds: float = 10.0
    """Time in which a client must have sent its request."""
    feedback_at_once: int = 256
    """Rows of feedback in one commit."""
