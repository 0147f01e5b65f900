"""Word of new models: what may be announced, and which run of several is the last wish."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from prefect._internal.websockets import websocket_connect
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_URL, temporary_settings
from websockets import Subprotocol
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve

from embedding_core.errors import ModelError
from embedlake.cli.models import check_announced
from embedlake.orchestration.events import announce, latest_request
from tests.embedlake.conftest import Embedlake

FAILED, BAD_USAGE = 1, 2
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def asked(
    minutes: int, model: str = "new", announced: str | None = None, **changes: Any
) -> FlowRun:
    """A run that an announcement asked for, so many minutes after noon."""
    created = NOON + timedelta(minutes=minutes)
    parameters = {"recipe": "a.yaml", "promote": "auto", "model": model, "announced": announced}
    values = {"created": created, "expected_start_time": created, "parameters": parameters}
    return FlowRun(flow_id=uuid4(), **(values | changes))


def scheduled(made: int, due: int) -> FlowRun:
    return asked(made, expected_start_time=NOON + timedelta(minutes=due), auto_scheduled=True)


def test_latest_request_is_the_last_of_those_after_a_run() -> None:
    first, second, third = asked(0, "x"), asked(1, "y"), asked(2, "z")
    assert latest_request(first, [third, first, second]) is third
    assert latest_request(third, [third, first, second]) is None


def test_latest_request_leaves_out_another_recipe_s_runs_and_other_ways_to_promote() -> None:
    other = asked(1, parameters={"recipe": "b.yaml", "promote": "auto", "model": "new"})
    built = asked(1, parameters={"recipe": "a.yaml", "promote": "never", "model": "new"})
    assert latest_request(asked(0), [other, built]) is None


def test_latest_request_run_of_a_schedule_was_asked_for_when_it_is_due() -> None:
    night = scheduled(made=0, due=60)
    assert latest_request(night, [asked(30)]) is None  # came before it is due
    assert latest_request(night, [asked(61)]) is not None
    assert latest_request(asked(30), [night]) is None  # asks for nothing new


def test_latest_request_of_runs_made_in_another_order_is_what_was_announced_last() -> None:
    first, second = (
        asked(made, model, announced=str(NOON + timedelta(seconds=sent)))
        for made, model, sent in ((2, "x", 1), (1, "y", 2))
    )
    assert latest_request(first, [second, first]) is second
    assert latest_request(second, [second, first]) is None


def test_announce_model_without_an_api_fails_and_says_what_to_do(embedlake: Embedlake) -> None:
    answer = embedlake("announce-model", "s3://bucket/models/2026-11-21", "--json")
    assert (answer.code, answer.json["kind"]) == (FAILED, "SetupError")
    assert "PREFECT_API_URL" in answer.err and "embedlake up" in answer.err


@contextmanager
def busy_events(silent: int, received: list[str]) -> Iterator[str]:
    """URL of an API of events that leaves the first so many handshakes without an answer."""
    over, unanswered = threading.Event(), iter(range(silent))

    def answer_or_not(connection: ServerConnection, request: Request) -> Response | None:
        if next(unanswered, None) is not None:
            over.wait()
        return None

    def receive(connection: ServerConnection) -> None:
        for message in map(json.loads, connection):
            if message.get("type") == "auth":
                connection.send('{"type": "auth_success"}')
            else:
                received.append(message["id"])

    with serve(
        receive, "127.0.0.1", 0, subprotocols=[Subprotocol("prefect")],
        process_request=answer_or_not,
    ) as server:  # fmt: skip
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.socket.getsockname()[1]}/api"
        finally:
            over.set()
            server.shutdown()
            thread.join()


def test_announce_waits_for_a_server_that_is_too_busy_to_shake_hands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    impatient = partial(websocket_connect, open_timeout=0.2)
    monkeypatch.setattr("prefect.events.clients.websocket_connect", impatient)
    received: list[str] = []
    with busy_events(5, received) as url, temporary_settings({PREFECT_API_URL: url}):
        event = announce("/models/new")
    assert received == [event.id]


@pytest.mark.parametrize(
    ("arguments", "named"), [((" ",), "no model"), (("m", "--for", "a*"), "'a*'")]
)
def test_announce_model_that_no_trigger_could_use_is_bad_usage(
    embedlake: Embedlake, arguments: tuple[str, ...], named: str
) -> None:
    answer = embedlake("announce-model", *arguments)
    assert answer.code == BAD_USAGE and named in answer.err


@pytest.mark.parametrize("model", ["empty", "missing", "package:no_such_package", "words"])
def test_announced_model_that_is_no_checkpoint_is_refused_with_a_way_out(
    model: str, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    named = str(tmp_path / model) if model in ("empty", "missing") else model
    with pytest.raises(ModelError, match=r"Nothing was announced.*--unchecked"):
        check_announced(named)


def test_announced_model_that_is_a_checkpoint_is_let_pass(tiny_qwen3: Path) -> None:
    check_announced(str(tiny_qwen3))
