"""The command line, called in this process: fast, and everything behind it is real."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from embedlake import interrupts
from embedlake.cli import main


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """Its one object on stdout."""
        data: dict[str, Any] = json.loads(self.out)
        return data


Embedlake = Callable[..., Answer]


@contextmanager
def handled_signals() -> Iterator[None]:
    """Signals stop a command in this context; afterwards the process is as it was."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    interrupts.handle_signals()
    try:
        yield
    finally:
        interrupts.handle_signals()  # which forgets the signals of this context
        for number, handler in handlers.items():
            signal.signal(number, handler)


@pytest.fixture
def embedlake(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Embedlake:
    """Calls the console script's entry point with arguments; no Prefect API is named."""
    monkeypatch.setenv("EMBEDLAKE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PREFECT_API_URL", "")

    def call(*arguments: str) -> Answer:
        monkeypatch.setattr(sys, "argv", ["embedlake", *arguments])
        with handled_signals(), pytest.raises(SystemExit) as ended:
            main.main()
        said = capsys.readouterr()
        return Answer(int(ended.value.code or 0), said.out, said.err)

    return call
