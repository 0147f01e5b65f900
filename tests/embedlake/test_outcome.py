"""How a flow ends, and what a command makes of it."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from prefect.client.schemas.objects import State
from prefect.states import Completed

from embedding_core.errors import LakeError, Locked
from embedding_core.reports.report import Report
from embedding_core.runs.outcome import Outcome
from embedlake.orchestration.outcome import RunEnded, ended, failed, report_of

DATA = {"summary": "three of four files", "rows": 3}


class Told(Report):
    """A report about an outcome."""

    record = str

    def __init__(self, record: Outcome) -> None:
        self._outcome = record

    @property
    def outcome(self) -> Outcome:
        return self._outcome

    def summary(self) -> str:
        return str(DATA["summary"])

    def lines(self) -> list[str]:
        return [self.summary()]

    def data(self) -> dict[str, Any]:
        return DATA


@pytest.mark.parametrize(("outcome", "name"), [("rejected", "Rejects"), ("refused", "Refused")])
def test_ended_run_that_wants_a_look_completes_under_a_name(outcome: Outcome, name: str) -> None:
    state = ended(Told(outcome))
    assert isinstance(state, State) and state.is_completed()
    assert (state.name, state.message) == (name, DATA["summary"])
    assert report_of(state) == DATA


def test_ended_run_that_failed_gives_its_report_all_the_same() -> None:
    state: Any = ended(Told("failed"))
    assert state.is_failed() and state.message == DATA["summary"]
    assert report_of(state) == DATA


def test_ended_run_that_is_done_gives_its_report() -> None:
    assert ended(Told("done")) == DATA
    assert report_of(Completed(data=DATA)) == DATA


def test_run_ended_survives_a_process_border() -> None:
    error = pickle.loads(pickle.dumps(RunEnded("unfinished", DATA)))
    assert (str(error), error.data) == ("unfinished", DATA)


def test_report_of_a_run_without_one_raises_its_error() -> None:
    with pytest.raises(LakeError, match="no table"):
        report_of(failed(LakeError("no table")))
    assert failed(Locked("another run")).name == "Locked"
