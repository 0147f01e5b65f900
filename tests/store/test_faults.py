"""What errors of stores mean, and how often a step is tried."""

from __future__ import annotations

import errno
import logging
import threading

import pytest
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    EndpointConnectionError,
    NoCredentialsError,
)

from embedding_core.errors import LakeError, Transient
from embedding_core.store import retry
from embedding_core.store.faults import NO_PATH, Fault, fault_of, status_of
from embedding_core.store.retry import STORE_ATTEMPTS, never_silent, tried_again


def answered(status: int) -> ClientError:
    return ClientError({"ResponseMetadata": {"HTTPStatusCode": status}}, "GetObject")  # type: ignore[typeddict-item]


def behind(cause: BaseException) -> OSError:
    error = OSError("s3fs says little")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (FileNotFoundError("x"), Fault.GONE),
        (PermissionError(errno.EACCES, "x"), Fault.DENIED),
        (NoCredentialsError(), Fault.DENIED),
        (behind(NoCredentialsError()), Fault.DENIED),
        (FileExistsError("x"), Fault.EXISTS),
        (OSError(errno.ENOSPC, "x"), Fault.FULL),
        (OSError(errno.EROFS, "x"), Fault.FULL),
        (answered(403), Fault.DENIED),
        (answered(404), Fault.GONE),
        (answered(409), Fault.EXISTS),
        (answered(412), Fault.CHANGED),
        (behind(answered(412)), Fault.CHANGED),
        (answered(408), Fault.PASSING),
        (answered(429), Fault.PASSING),
        (answered(500), Fault.PASSING),
        (behind(answered(503)), Fault.PASSING),
        (answered(301), Fault.FINAL),
        (answered(400), Fault.FINAL),
        (EndpointConnectionError(endpoint_url="http://x"), Fault.PASSING),
        (ConnectionClosedError(endpoint_url="http://x"), Fault.PASSING),
        (BotoCoreError(), Fault.FINAL),
        (ConnectionResetError("x"), Fault.PASSING),
        (TimeoutError("x"), Fault.PASSING),
        (ValueError("no address"), Fault.FINAL),
        *[(OSError(number, "x"), Fault.FINAL) for number in NO_PATH],
        (OSError(errno.EIO, "x"), Fault.PASSING),
        (OSError(errno.EMFILE, "x"), Fault.PASSING),
    ],
    ids=lambda value: value.name if isinstance(value, Fault) else repr(value)[:50],
)
def test_fault_of_class_number_and_status(error: BaseException, fault: Fault) -> None:
    assert fault_of(error) is fault


def test_status_of_error_without_an_answer_is_none() -> None:
    assert status_of(OSError("x")) is None
    assert status_of(behind(answered(418))) == 418


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that a test would have waited."""
    seconds: list[float] = []
    monkeypatch.setattr("time.sleep", seconds.append)
    return seconds


def test_tried_again_until_it_succeeds_with_growing_pauses(pauses: list[float]) -> None:

    def step(attempt: int) -> str:
        if attempt < 4:
            raise Transient("a hiccup")
        return f"attempt {attempt}"

    assert tried_again("do it", step) == "attempt 4"
    assert [0.2 * 2**n <= pause <= 0.6 * 2**n for n, pause in enumerate(pauses)] == [True] * 3


def test_tried_again_says_every_attempt_that_failed(
    pauses: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    def step(attempt: int) -> None:
        if attempt < 3:
            raise Transient("it may pass") from OSError(f"number {attempt}")

    tried_again("do it", step)
    assert caplog.messages == [
        f"could not do it: number {attempt} (attempt {attempt} of 5)" for attempt in (1, 2)
    ]
    assert len(pauses) == 2


def test_never_silent_says_that_a_step_takes_long_until_it_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = Said()
    monkeypatch.setattr(retry, "SILENT_SECONDS", 0.001)
    monkeypatch.setattr(retry.log, "handlers", [said])
    with never_silent("read a store"):
        assert said.twice.wait(60)
    assert said.messages[0].startswith("still trying to read a store, for 0 s")


class Said(logging.Handler):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []
        self.twice = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())
        if len(self.messages) == 2:
            self.twice.set()


def test_tried_again_gives_up_with_the_cause_and_what_to_do(pauses: list[float]) -> None:
    def step(attempt: int) -> None:
        raise Transient("it may pass") from OSError(f"number {attempt}")

    with pytest.raises(Transient, match=r"could not do it in 5 attempts \(number 5\); look for"):
        tried_again("do it", step)
    assert len(pauses) == STORE_ATTEMPTS - 1


def test_tried_again_waits_for_what_the_store_asked(pauses: list[float]) -> None:
    def step(attempt: int) -> str:
        if attempt == 1:
            raise Transient("HTTP 429", pause_seconds=7)
        return "done"

    assert tried_again("do it", step) == "done"
    assert pauses == [7]


def test_tried_again_does_not_wait_for_an_hour(pauses: list[float]) -> None:
    def step(attempt: int) -> None:
        raise Transient("HTTP 429", pause_seconds=3600)

    with pytest.raises(Transient, match=r"HTTP 429; run the same command again in 3,600 s"):
        tried_again("do it", step)
    assert pauses == []


def test_tried_again_other_errors_are_not_tried_again(pauses: list[float]) -> None:
    def step(attempt: int) -> None:
        raise LakeError(f"attempt {attempt}")

    with pytest.raises(LakeError, match="attempt 1"):
        tried_again("do it", step)
    assert pauses == []
