"""The demos stop what they started, however they are ended."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from embedding_core.errors import SetupError
from embedlake.local import processes
from examples.demo import told
from tests.embedlake.conftest import handled_signals


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_demo_that_is_ended_by_a_signal_stops_its_server(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    waits = [sys.executable, "-c", "import signal; signal.pause()"]
    server = processes.start("server", waits, {}, tmp_path / "log")

    def story() -> int:
        try:
            signal.raise_signal(number)
            return 0
        finally:
            processes.stop(server)

    with handled_signals():
        assert told(story) == code
    assert not psutil.pid_exists(server.pid)


@pytest.mark.parametrize(
    ("story", "ending"), [(lambda: 3, 3), (lambda: fail("no model"), "demo: no model")]
)
def test_demo_ends_as_its_story_does(story: Callable[[], int], ending: int | str) -> None:
    with handled_signals():
        assert told(story) == ending


def fail(why: str) -> int:
    raise SetupError(why)
