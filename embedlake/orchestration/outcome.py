"""How a flow run ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from embedding_core.errors import EmbedlakeError, Locked
from embedding_core.reports.report import Report, said

NAMES = {"rejected": "Rejects", "refused": "Refused"}
"""Names of states of runs that ended, and that a person should look at."""


class RunEnded(EmbedlakeError):
    """A run did not do everything. What it did stays, and the next run does the rest."""

    def __init__(self, summary: str, data: Mapping[str, Any]) -> None:
        super().__init__(summary)
        self.data = dict(data)
        """The run's report as plain values."""

    def __reduce__(self) -> tuple[type[RunEnded], tuple[str, dict[str, Any]]]:
        return RunEnded, (str(self), self.data)


def ended(report: Report) -> dict[str, Any] | State[dict[str, Any]]:
    """What a flow returns: the report as plain values, or a state that a person should look at."""
    data = report.data()
    if report.outcome == "failed":
        return failed(RunEnded(report.summary(), data))
    if report.outcome in NAMES:
        return Completed(name=NAMES[report.outcome], message=report.summary(), data=data)
    return data


def failed(error: EmbedlakeError) -> State[Any]:
    """A Failed state that says what to do: raising would bury the message under a traceback."""
    name = "Locked" if isinstance(error, Locked) else None
    return Failed(name=name, message=said(error), data=error)


def report_of(state: State[Any]) -> dict[str, Any]:
    """The report of an ended flow run. Raises the error of a run that has none."""
    result = state.result(raise_on_failure=False)
    if isinstance(result, RunEnded):
        return result.data
    if isinstance(result, BaseException):
        raise result
    return dict(result)
