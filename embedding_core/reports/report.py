"""What every report can do, and the registry of reports. Knows neither click, Prefect nor rich."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, ClassVar, Protocol

from embedding_core.errors import Action, PluginError, words
from embedding_core.records import StageSeconds
from embedding_core.registry import REPORTS, Registry
from embedding_core.runs.outcome import EXIT_CODES, Outcome

HINTS: Mapping[Action, str] = {
    "embed": "run `embedlake embed RECIPE`",
    "reembed": "run `embedlake reembed RECIPE`",
    "maintain": "run `embedlake maintain RECIPE`",
    "verify": "`embedlake verify RECIPE --deep` names what is damaged",
    "repair": "`embedlake verify RECIPE --deep --repair` takes out what is damaged, and the next "
    "`embedlake embed RECIPE` makes it again",
    "promote": "`embedlake promote RECIPE COLUMN` puts a space in service",
    "retire": "`embedlake retire RECIPE COLUMN` drops the column",
    "releases": "`embedlake releases RECIPE` lists what was switched",
    "status": "`embedlake status RECIPE` lists the spaces, and with --rejects what was left out",
    "plan": "`embedlake plan RECIPE` shows what a run would do",
    "evaluate": "or give --queries and --qrels to `embedlake evaluate`",
    "allow_removals": "if the rows are meant to go, run with --allow-removals",
    "wait": "run the same command again when it has ended, or wait longer "
    "(EMBEDLAKE_LOCK_WAIT_SECONDS)",
    "schema": "`embedlake schema` prints what a recipe may say",
    "resume": "run the same command with --resume to go on where it ended",
    "overwrite": "--resume goes on with an export that was cut off, --overwrite replaces it",
    "resources": "set the resource with --set NAME=VALUE or EMBEDLAKE_RESOURCES__NAME",
}
"""What to do next on the command line, by the ``action`` of an error."""

LINES_SHOWN = 20
"""A report shows at most this many lines about single files or problems."""


class Report(Protocol):
    """Puts one record into words. The class is registered; each instance is about one record."""

    record: ClassVar[type]
    """The class of the records that the report is about."""

    def __init__(self, record: Any) -> None:
        """Take the record; whatever else a report shows has a default."""

    @property
    def outcome(self) -> Outcome:
        """How the work ended that the record tells of."""
        return "done"

    def summary(self) -> str:
        """The record in one line, for the message of a state."""
        ...

    def lines(self) -> list[str]:
        """The record in lines, for a terminal or a log."""
        ...

    def data(self) -> dict[str, Any]:
        """The record as plain values, for ``--json``."""
        ...

    def markdown(self) -> str:
        """The record as a page, for an artifact in Prefect; here the lines as they are."""
        return text_block(self.lines())


WRITTEN = Registry[type[Report]](
    REPORTS,
    {
        name: f"embedding_core.reports.{name}:REPORT"
        for name in (
            "plan", "run", "maintenance", "status", "answers", "releases",
            "gate", "reembed", "audit", "evaluation",
        )
    }
    | {
        name: f"embedding_core.reports.inputs.{name}:REPORT"
        for name in ("draft", "peek", "statistics", "validation")
    }
    | {
        name: f"embedding_core.reports.exchange.{name}:REPORT"
        for name in ("exported", "imported", "learned")
    }
    | {name: f"embedding_core.reports.look.{name}:REPORT" for name in ("overview", "placed")}
    | {name: f"embedding_core.reports.speeds.{name}:REPORT" for name in ("speed", "engine_rates")},
    Report,
)  # fmt: skip


def report_of(record: object) -> Report:
    """Return the report of a record, by the record's class.

    Registered reports are loaded in turn until one fits, so a command does not load the modules of
    all records. A broken plugin is left out; ``embedlake doctor`` shows it.
    Raises ``TypeError`` for a record that no report is about.
    """
    for name in WRITTEN.names():
        try:
            report = WRITTEN.get(name)
        except PluginError:
            continue
        if isinstance(record, report.record):
            return report(record)
    raise TypeError(f"no report is about records of the class {type(record).__name__}")


def said(error: BaseException) -> str:
    """The message of an error, and what to do about it on the command line."""
    action: Action | None = getattr(error, "action", None)
    return words(error) if action is None else f"{words(error)}; {HINTS[action]}"


def ended_data(report: Report, record: Any) -> dict[str, Any]:
    """A record's values, with the report's summary and the exit code of how the work ended."""
    code = EXIT_CODES[report.outcome]
    return {"summary": report.summary(), **asdict(record), "exit_code": code}


def stage_words(stages: StageSeconds) -> str:
    """The stages that took any time, in order, without the wait: ``read 0.2 s · forward 3.1 s``."""
    seconds = asdict(stages)
    del seconds["wait"]
    shown = [f"{name} {took:,.1f} s" for name, took in seconds.items() if took]
    return " · ".join(shown) or "no time in any stage"


def text_block(lines: Sequence[str]) -> str:
    """A markdown block that shows the lines as they are; no line can end it."""
    body = "\n".join(lines)
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", body)), default=0))
    return f"{fence}\n{body}\n{fence}"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A markdown table; cells may hold any text."""
    lines = [_row(columns), _row(["---"] * len(columns))]
    return "\n".join([*lines, *(_row([_cell(text) for text in row]) for row in rows)])


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(text: str) -> str:
    """Escape what would end the cell or begin markup."""
    flat = " ".join(text.split())
    return "".join(f"\\{char}" if char in "\\|`*_<>[]&" else char for char in flat)
