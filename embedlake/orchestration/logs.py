"""Log lines that can be found by run, unit and file, in Prefect and as JSON."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

from prefect.context import FlowRunContext, TaskRunContext
from prefect.logging.formatters import JsonFormatter
from prefect.logging.handlers import APILogHandler, PrefectConsoleHandler

from embedding_core.watch.subject import Subject, current_subject, subject_of
from embedlake.terminal import HarmlessLines

OWN = ("embedding_core", "embedlake")
"""Loggers whose warnings Prefect keeps with the run, beside the lines of flows and tasks."""
FROM_PREFECT = ("flow_run_name", "task_run_name")
"""What Prefect knows of a line of a flow or a task."""


def subject_of_line(record: logging.LogRecord) -> Subject:
    """What a line is about: what it says itself, else the error that it tells of, else what the
    thread works on."""
    error = record.exc_info[1] if record.exc_info else None
    context = (subject_of(error) or current_subject()).fields
    said = {name: str(getattr(record, name, "")) for name in ("run", "unit", "file")}
    run_id = {"run": str(getattr(record, "flow_run_id", ""))}
    return Subject(**(run_id | context | {name: value for name, value in said.items() if value}))


class JsonLines(logging.Formatter):
    """A JSON object per line: time, level, logger and message; run, unit and file as far as they
    are known; names of Prefect's flow and task run; kind of error and traceback."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **subject_of_line(record).fields,
            **{name: value for name in FROM_PREFECT if (value := getattr(record, name, None))},
        }
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = record.exc_info[0].__name__
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class WithSubject(logging.Formatter):
    """The lines of another formatter; warnings and errors end with run, unit and file."""

    def __init__(self, plain: logging.Formatter) -> None:
        super().__init__()
        self._plain = plain

    def format(self, record: logging.LogRecord) -> str:
        text = self._plain.format(record)
        if record.levelno < logging.WARNING:
            return text
        subject = str(subject_of_line(record))
        return f"{text} [{subject}]" if subject else text


def set_up_logs(as_json: bool, stream: TextIO | None = None) -> None:
    """Let the lines of this process name run, unit and file; again changes nothing.

    ``as_json``: every line of the process is a JSON object, on ``stream`` (stderr).
    """
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler, PrefectConsoleHandler):
            if as_json:
                root.removeHandler(handler)
                root.addHandler(_json_handler(stream or sys.stderr, handler.level))
            else:
                _name_subjects(handler)
                _make_harmless(handler)
    to_prefect = _handlers_to_prefect()
    for handler in to_prefect:
        _name_subjects(handler)
        if _is_of_a_run not in handler.filters:
            handler.addFilter(_is_of_a_run)
    for name in OWN:
        logger = logging.getLogger(name)
        for handler in to_prefect[:1]:
            if handler not in logger.handlers:
                logger.addHandler(handler)


def _handlers_to_prefect() -> list[logging.Handler]:
    """The handlers that send the lines of flows and tasks to the Prefect API."""
    loggers = map(logging.getLogger, ("prefect.flow_runs", "prefect.task_runs"))
    handlers = [handler for logger in loggers for handler in logger.handlers]
    return [handler for handler in handlers if isinstance(handler, APILogHandler)]


def _json_handler(stream: TextIO, level: int) -> logging.Handler:
    handler = logging.StreamHandler(stream)
    handler.setLevel(level)
    handler.setFormatter(JsonLines())
    return handler


def _name_subjects(handler: logging.Handler) -> None:
    if not isinstance(
        handler.formatter, WithSubject | HarmlessLines | JsonFormatter
    ):  # Prefect's own JSON
        handler.setFormatter(WithSubject(handler.formatter or logging.Formatter()))


def _make_harmless(handler: logging.Handler) -> None:
    if isinstance(handler.formatter, WithSubject):
        handler.setFormatter(HarmlessLines(handler.formatter))


def _is_of_a_run(record: logging.LogRecord) -> bool:
    """Whether the Prefect API can say whose line it is. Of threads that Prefect does not know, the
    subject says it."""
    if FlowRunContext.get() is not None or TaskRunContext.get() is not None:
        return True
    if not hasattr(record, "flow_run_id") and (run := subject_of_line(record).run):
        record.flow_run_id = run
    return hasattr(record, "flow_run_id")
