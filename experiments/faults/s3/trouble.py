"""What can happen to a request to a store on its way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

CHANGES = "^(PUT|POST|DELETE) "
"""Requests that change what is in a store."""


class Harm(StrEnum):
    """What happens to a request."""

    KILL_BEFORE = "kill before"
    """The process that sends it is killed before the store has it."""
    KILL_AFTER = "kill after"
    """The process is killed when the store has done it."""
    LOSE_REPLY = "reply lost"
    """The store does it; the connection ends without a word."""
    DENY = "done, answered 500"
    """The store does it; the client is told that it failed."""
    REFUSE_500 = "refused with 500"
    """The store never sees it; likewise the next."""
    REFUSE_503 = "refused with 503"
    CUT = "cut"
    """Half of what is sent, or of the answer when nothing is sent, gets through."""
    DELAY = "delayed"
    """It waits for ``seconds``."""
    OUTAGE = "outage"
    """From it on nothing gets through for ``seconds``."""
    REPLY_AND_OUTAGE = "reply lost, then an outage"
    STRIP = "header stripped"
    """It goes on without ``header``."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """Which requests are harmed, and how."""

    harm: Harm | None = None
    """None: requests are counted."""
    matches: str = CHANGES
    """Regular expression over ``METHOD /path?query`` of the requests that count."""
    number: int = 0
    """Which of them is harmed, counted from 1; 0: those that ``share`` draws."""
    share: float = 0.0
    seed: int = 0
    seconds: float = 0.0
    pid: int = 0
    """The process to kill."""
    header: str = ""

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Trouble:
        """Trouble that JSON carried."""
        return cls(**{**content, "harm": content["harm"] and Harm(content["harm"])})


@dataclass(frozen=True, slots=True)
class Traffic:
    """What a proxy has seen since it was given its trouble."""

    n_matching: int
    n_harmed: int
