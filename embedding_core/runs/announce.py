"""Tell people about long work while it goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar

from embedding_core.plurals import counted
from embedding_core.protocols import TextEncoder

Say = Callable[[str], None]
"""Takes one line for people, such as the ``info`` of a logger."""

Loaded = Callable[[TextEncoder], TextEncoder]
"""Takes a model that is loaded, and gives it back."""

Loading = Callable[[str], AbstractContextManager[Loaded]]
"""Makes, of a model's name, the context in which the model is loaded."""

SILENT_SECONDS = 10.0
"""Work is silent for about this long at most."""


def silent(_line: str) -> None:
    """Say nothing."""


def unannounced(_model: str) -> AbstractContextManager[Loaded]:
    """Say nothing of a model that is loaded."""
    return nullcontext(lambda encoder: encoder)


@contextmanager
def announcing(loading: Loading) -> Iterator[None]:
    """Load every model inside a context that ``loading`` makes, whoever asks for the model."""
    token = _loading.set(loading)
    try:
        yield
    finally:
        _loading.reset(token)


def loading_context(model: str) -> AbstractContextManager[Loaded]:
    """The context to load a model in."""
    return _loading.get()(model)


@contextmanager
def telling(say: Say, model: str) -> Iterator[Loaded]:
    """Say that a model is being loaded, when it is ready, and what it computes in."""
    started = time.monotonic()
    say(f"loading the model {model}")

    def ready(encoder: TextEncoder) -> TextEncoder:
        seconds = time.monotonic() - started
        say(f"the model {model} is ready after {seconds:.1f} s: {encoder!r}")
        return encoder

    yield ready


_loading: ContextVar[Loading] = ContextVar("loading", default=unannounced)


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
            self._say(
                f"{self._done:,} of {counted(self._total, 'chunk')} embedded, {rate:,.1f} a second"
            )
