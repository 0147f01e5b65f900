"""Errors of a server that no other room has."""

from __future__ import annotations

from embedding_core.errors import Transient, UsageError


class Busy(Transient):
    """More is asked than the server does at once; ask again after ``pause_seconds``."""

    code = "busy"


class NotServed(UsageError):
    """There is nothing of that name here."""

    code = "not_served"
