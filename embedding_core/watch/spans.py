"""Spans of a run for whoever traces it; without a tracer a span is nothing."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

Attribute = str | int | float


class Tracer(Protocol):
    """Keeps spans."""

    def span(
        self, name: str, parent: str, attributes: Mapping[str, Attribute]
    ) -> AbstractContextManager[object]:
        """The context of a span below ``parent``, or below the current span where that is empty."""
        ...

    def current(self) -> str:
        """Which span is current, as W3C's ``traceparent``; empty outside of any."""
        ...


class _Process:
    tracer: Tracer | None = None


def trace_with(tracer: Tracer | None) -> None:
    """Keep the spans of this process by a tracer; None: keep none."""
    _Process.tracer = tracer


def is_traced() -> bool:
    """Whether this process keeps spans."""
    return _Process.tracer is not None


def span(name: str, parent: str = "", **attributes: Attribute) -> AbstractContextManager[object]:
    """The context of a span, with attributes; ``parent`` is ``current_span()`` of any process."""
    if _Process.tracer is None:
        return nullcontext()
    return _Process.tracer.span(name, parent, attributes)


def current_span() -> str:
    """Which span is current, for ``parent`` in another process; empty without a tracer."""
    return "" if _Process.tracer is None else _Process.tracer.current()
