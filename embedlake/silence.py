"""Keep a run from being silent for long."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from embedding_core.protocols import TextEncoder
    from embedding_core.runs.announce import Loaded

SILENT_SECONDS = 10.0
"""A run that waits for longer says what for."""
MOMENT_SECONDS = 1.0
"""What is done sooner is not worth a word."""


@contextmanager
def _speaking(keep_saying: Callable[[], None], over: threading.Event) -> Iterator[None]:
    """Speak from a thread until the context is over."""
    speaker = threading.Thread(target=keep_saying, name="embedlake-silence", daemon=True)
    speaker.start()
    try:
        yield
    finally:
        over.set()
        speaker.join()


@contextmanager
def saying_it_goes_on(
    say: Callable[[str], None], name: str, every_seconds: float = SILENT_SECONDS
) -> Iterator[None]:
    """Say now and then, from a thread, that the work of this context goes on, and since when."""
    over, started = threading.Event(), time.monotonic()

    def keep_saying() -> None:
        while not over.wait(every_seconds):
            say(f"{name}: under way for {time.monotonic() - started:,.0f} s")

    with _speaking(keep_saying, over):
        yield


@contextmanager
def saying_a_slow_load(
    say: Callable[[str], None],
    model: str,
    moment_seconds: float = MOMENT_SECONDS,
    every_seconds: float = SILENT_SECONDS,
) -> Iterator[Loaded]:
    """Say, from a thread, that a model is being loaded when it takes longer than a moment, that it
    goes on, and when it is ready."""
    over, spoke, started = threading.Event(), threading.Event(), time.monotonic()
    ready = ""

    def loaded(encoder: TextEncoder) -> TextEncoder:
        nonlocal ready
        ready = f": {encoder!r}"
        return encoder

    def keep_saying() -> None:
        if over.wait(moment_seconds):
            return
        spoke.set()
        say(f"loading the model {model}")
        while not over.wait(every_seconds):
            say(f"loading the model {model}: under way for {time.monotonic() - started:,.0f} s")

    with _speaking(keep_saying, over):
        yield loaded
    if spoke.is_set():
        say(f"the model {model} is ready after {time.monotonic() - started:.1f} s{ready}")
