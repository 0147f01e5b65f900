"""Errors of a server that no other room has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from embedding_core.errors import Transient, UsageError

MOST_PROBLEMS = 8


class Busy(Transient):
    """More is asked than the server does at once; ask again after ``pause_seconds``."""

    code = "busy"


class NotServed(UsageError):
    """There is nothing of that name here."""

    code = "not_served"


def invalid_words(problems: Sequence[Mapping[str, Any]]) -> str:
    """What pydantic finds wrong with a request, field by field; the first ``MOST_PROBLEMS``."""
    return "; ".join(
        f"{'.'.join(map(str, problem['loc'])) or 'the body'}: {problem['msg']}"
        for problem in problems[:MOST_PROBLEMS]
    )
