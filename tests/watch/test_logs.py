"""A line of a failure is found by run, unit and file: as text, as JSON, and in Prefect."""

from __future__ import annotations

import io
import json
import logging
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.logging.formatters import JsonFormatter
from prefect.logging.handlers import APILogHandler, PrefectConsoleHandler

from embedding_core.errors import Transient
from embedding_core.records import PlannedFile, WorkUnit
from embedding_core.runs.embed import chunk_stage
from embedding_core.runs.embed.chunk_stage import chunk_unit
from embedding_core.runs.embed.execution import InProcess
from embedding_core.runs.embed.finish_stage import RunTally
from embedding_core.runs.embed.scheduler import run_units
from embedding_core.runs.embed.units import work_units
from embedding_core.watch.subject import current_subject, subject_of, working_on
from embedlake.environment import process_environment
from embedlake.orchestration.logs import JsonLines, WithSubject, set_up_logs
from tests.driver import begin, recipe_for, write_jsonl

NAMES = ("", "prefect.flow_runs", "prefect.task_runs", "embedding_core", "embedlake")


@pytest.fixture
def loggers() -> Iterator[dict[str, logging.Logger]]:
    """The loggers that are set up, as Prefect leaves them; afterwards as they were."""
    named = {name: logging.getLogger(name) for name in NAMES}
    handlers = {name: list(logger.handlers) for name, logger in named.items()}
    to_prefect, console = APILogHandler(), PrefectConsoleHandler(io.StringIO())
    for name, logger in named.items():
        logger.handlers = [to_prefect] if name.startswith("prefect") else []
    named[""].handlers = [console]
    yield named
    for name, logger in named.items():
        logger.handlers = handlers[name]


def record(level: int = logging.INFO, error: Exception | None = None, **extra: Any) -> Any:
    exc_info = (type(error), error, error.__traceback__) if error else None
    line = logging.LogRecord("embedding_core.x", level, "x.py", 1, "%s lost", ("it",), exc_info)
    vars(line).update(extra)
    return line


def fields_of(error: BaseException) -> dict[str, str]:
    subject = subject_of(error)
    return {} if subject is None else subject.fields


def failed_in(**subject: str) -> Transient:
    with pytest.raises(Transient) as raised, working_on(**subject):
        raise Transient("the store is gone")
    return raised.value


def test_error_carries_its_subject_to_other_processes() -> None:
    error = pickle.loads(pickle.dumps(failed_in(run="r" * 36, unit="u" * 64, file="/src/a.jsonl")))
    assert fields_of(error) == {"run": "r" * 36, "unit": "u" * 64, "file": "/src/a.jsonl"}
    (note,) = error.__notes__
    assert note == f"while working on run {'r' * 12} · unit {'u' * 12} · file /src/a.jsonl"


def test_error_keeps_the_innermost_subject() -> None:
    with pytest.raises(Transient) as raised, working_on(run="r"), working_on("r", "u"):
        raise Transient("gone")
    assert fields_of(raised.value) == {"run": "r", "unit": "u"}
    assert len(raised.value.__notes__) == 1 and current_subject().fields == {}


def test_thread_that_says_nothing_works_for_the_process() -> None:
    seen = list[dict[str, str]]()
    with working_on("r", "u", "/src/a.jsonl"):
        thread = threading.Thread(target=lambda: seen.append(current_subject().fields))
        thread.start()
        thread.join()
    assert seen == [{"run": "r", "unit": "u", "file": "/src/a.jsonl"}]


def test_json_line_has_run_unit_and_file_of_the_work() -> None:
    with working_on("run", "unit", "/src/a b.jsonl"):
        line = json.loads(JsonLines().format(record()))
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "INFO", "logger": "embedding_core.x", "message": "it lost",
        "run": "run", "unit": "unit", "file": "/src/a b.jsonl",
    }  # fmt: skip


def test_json_line_of_an_error_has_its_subject_kind_and_traceback() -> None:
    line = JsonLines().format(record(logging.ERROR, failed_in(run="run", file="/src/a.jsonl")))
    content = json.loads(line)
    assert "\n" not in line and (content["run"], content["file"]) == ("run", "/src/a.jsonl")
    assert content["error"] == "Transient" and "while working on" in content["traceback"]


def test_json_line_of_prefect_has_its_run_and_names() -> None:
    line = record(flow_run_id="f1", flow_run_name="embed docs 3", task_run_name="chunk a.jsonl")
    content = json.loads(JsonLines().format(line))
    assert content["run"] == "f1"
    assert (content["flow_run_name"], content["task_run_name"]) == ("embed docs 3", "chunk a.jsonl")


def test_text_of_a_warning_ends_with_its_subject_and_other_text_does_not() -> None:
    formatter = WithSubject(logging.Formatter("%(message)s"))
    about = {"run": "run", "unit": "unit", "file": "/src/a.jsonl"}
    line = formatter.format(record(logging.WARNING, **about))
    assert line == "it lost [run run · unit unit · file /src/a.jsonl]"
    assert formatter.format(record(**about)) == "it lost"
    assert formatter.format(record(logging.WARNING)) == "it lost"


def test_json_is_all_that_a_process_says(loggers: dict[str, logging.Logger]) -> None:
    stream = io.StringIO()
    for _ in range(2):
        set_up_logs(True, stream)
    with working_on("run", "unit", "/src/a.jsonl"):
        logging.getLogger("embedding_core.store").warning(":warning: [red]could not read[/red]")
    (line,) = stream.getvalue().splitlines()
    assert json.loads(line)["message"] == ":warning: [red]could not read[/red]"
    assert json.loads(line)["file"] == "/src/a.jsonl"


def test_text_stays_prefect_s_with_the_subject(loggers: dict[str, logging.Logger]) -> None:
    before = list(loggers[""].handlers)
    (console,) = (handler for handler in before if isinstance(handler, PrefectConsoleHandler))
    for _ in range(2):
        set_up_logs(False)
    assert loggers[""].handlers == before
    with working_on("run", file="/src/a.jsonl"):
        logging.getLogger("embedding_core.store").warning("could not read")
    assert console.stream.getvalue() == "could not read [run run · file /src/a.jsonl]\n"


def test_json_of_prefect_alone_stays_json(loggers: dict[str, logging.Logger]) -> None:
    (console,) = (
        handler for handler in loggers[""].handlers if isinstance(handler, PrefectConsoleHandler)
    )
    console.setFormatter(JsonFormatter("default", "", "%"))
    set_up_logs(False)
    with working_on("run"):
        logging.getLogger("embedding_core.store").warning("could not read")
    assert json.loads(console.stream.getvalue())["msg"] == "could not read"


def test_own_warnings_go_to_prefect_from_runs_alone(loggers: dict[str, logging.Logger]) -> None:
    set_up_logs(False)
    (to_prefect,) = loggers["embedding_core"].handlers
    assert to_prefect is loggers["prefect.task_runs"].handlers[0]
    assert not to_prefect.filter(record())  # nobody knows of which run
    with working_on("f2"):
        assert to_prefect.filter(line := record()) and line.flow_run_id == "f2"
    assert to_prefect.filter(record(flow_run_id="f1"))
    about = {"flow_run_id": "f1", "unit": "u1", "file": "/src/a.jsonl"}
    assert to_prefect.format(record(logging.ERROR, **about)) == (
        "it lost [run f1 · unit u1 · file /src/a.jsonl]"
    )


def test_workers_of_a_cluster_are_watched_alike_and_get_no_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EMBEDLAKE_LOG_FORMAT", "json")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer canary")
    environment = process_environment()
    assert environment["EMBEDLAKE_LOG_FORMAT"] == "json"
    assert environment["PREFECT_LOGGING_HANDLERS_CONSOLE_FORMATTER"] == "json"
    assert environment["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://collector:4318"
    assert "canary" not in str(environment)


class Faulty(InProcess):
    """Units of ``b.jsonl`` fail while the file is read, as a library that gives up would let
    them."""

    def result(self, submitted: Any) -> Any:
        """See ``UnitRunner``."""
        unit: WorkUnit = submitted.unit
        if "b.jsonl" not in unit.label:
            return super().result(submitted)
        try:
            with working_on(self.job.run_id, unit.unit_id, unit.files[-1].file.uri):
                raise Transient("the store is gone")
        except Transient as error:
            return error


def test_failure_of_a_unit_is_found_by_run_unit_and_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        write_jsonl(tmp_path, name, {name: "text"})
    job, planned = begin(recipe_for(tmp_path))
    run_units(job, planned, RunTally(), Faulty(), lambda: None)
    (line,) = (line for line in caplog.records if line.levelno >= logging.ERROR)
    unit = next(unit for unit in work_units(planned, 1) if "b.jsonl" in unit.label)
    found = json.loads(JsonLines().format(line))
    assert (found["run"], found["unit"]) == (job.run_id, unit.unit_id)
    assert found["file"] == str(tmp_path / "src" / "b.jsonl")


def test_error_of_the_chunk_stage_names_the_file_it_came_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        write_jsonl(tmp_path, name, {name: "text"})
    read_chosen = chunk_stage.read_chosen

    def failing_store(planned: PlannedFile, *arguments: Any) -> Iterator[Any]:
        if planned.file.uri.endswith("b.jsonl"):
            raise Transient("the store is gone")
        return read_chosen(planned, *arguments)

    job, planned = begin(recipe_for(tmp_path))
    (unit,) = work_units(planned, 1 << 20)
    monkeypatch.setattr(chunk_stage, "read_chosen", failing_store)
    with pytest.raises(Transient) as raised:
        chunk_unit(job, unit)
    uri = str(tmp_path / "src" / "b.jsonl")
    assert fields_of(raised.value) == {"run": job.run_id, "unit": unit.unit_id, "file": uri}
