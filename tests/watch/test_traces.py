"""Spans of a run: one trace, whatever processes its tasks run in, and nothing where it is off."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from embedding_core.errors import Transient
from embedding_core.recipe import Resources
from embedding_core.runs.embed.run import embed
from embedding_core.watch.spans import current_span, span, trace_with
from embedlake.orchestration.traces import OpenTelemetry
from tests.driver import recipe_for, write_jsonl
from tests.watch.collector import collector


@pytest.fixture
def exporter() -> Iterator[InMemorySpanExporter]:
    """Keeps the spans of this process for the time of a test."""
    exporter = InMemorySpanExporter()
    trace_with(OpenTelemetry(exporter))
    yield exporter
    trace_with(None)


def finished(exporter: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [span for span in exporter.get_finished_spans() if span.name == name]


def test_run_is_a_trace_of_plan_units_commit_and_index(
    exporter: InMemorySpanExporter, tmp_path: Path
) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        write_jsonl(tmp_path, name, {name: "some text"})
    report = embed(recipe_for(tmp_path), Resources(unit="file"))
    (run,) = finished(exporter, "run")
    assert run.parent is None and run.attributes is not None
    assert dict(run.attributes) == {
        "embedlake.run": report.run_id, "embedlake.recipe": "test", "embedlake.table": "docs",
    }  # fmt: skip
    children = [span for span in exporter.get_finished_spans() if span is not run]
    assert [child.name for child in children] == [
        "plan", "chunk", "embed", "chunk", "embed", "commit", "index", "verify",
    ]  # fmt: skip
    assert {child.parent.span_id for child in children if child.parent} == {run.context.span_id}
    assert {child.context.trace_id for child in children} == {run.context.trace_id}
    units = [dict(child.attributes or {}) for child in finished(exporter, "embed")]
    assert {unit["embedlake.file"] for unit in units} == {
        str(tmp_path / "src" / name) for name in ("a.jsonl", "b.jsonl")
    }
    assert {unit["embedlake.run"] for unit in units} == {report.run_id}
    assert all(len(str(unit["embedlake.unit"])) == 64 for unit in units)


def test_error_stands_in_the_span_it_left(exporter: InMemorySpanExporter) -> None:
    with pytest.raises(Transient), span("chunk"):
        raise Transient("the store is gone")
    (failed,) = finished(exporter, "chunk")
    assert not failed.status.is_ok and failed.events[0].name == "exception"


def test_span_has_the_parent_that_came_from_another_process(
    exporter: InMemorySpanExporter,
) -> None:
    with span("run"):
        sent = current_span()
    with span("chunk", sent):
        pass
    run, chunk = exporter.get_finished_spans()
    assert chunk.parent is not None and chunk.parent.span_id == run.context.span_id
    assert chunk.context.trace_id == run.context.trace_id


def test_without_a_tracer_nothing_is_kept_nor_sent_along() -> None:
    with span("run", run="r"):
        assert current_span() == ""


def in_another_process(program: str, **environment: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    ).stdout


def test_nothing_of_opentelemetry_is_imported_by_a_run_that_is_not_traced(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"a": "text"})
    program = (
        "import sys\n"
        "from embedding_core.runs.embed.run import embed\n"
        f"embed({recipe_for(tmp_path).model_dump(mode='json')!r})\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])\n"
    )
    assert in_another_process(program, PATH="", HOME=str(tmp_path)).strip() == "[]"


def test_spans_of_two_processes_arrive_at_a_collector_as_one_trace(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from embedlake.orchestration.traces import set_up_traces\n"
        "from embedding_core.watch.spans import current_span, span\n"
        "set_up_traces('otlp')\n"
        "with span(*sys.argv[1:], run='r'):\n"
        "    print(current_span())\n"
    )
    with collector() as arrived:
        environment = {"HOME": str(tmp_path), "OTEL_EXPORTER_OTLP_ENDPOINT": arrived.url}
        first = in_another_process(program.replace("*sys.argv[1:]", "'run'"), **environment)
        parent = json.dumps(first.strip())
        in_another_process(program.replace("*sys.argv[1:]", f"'chunk', {parent}"), **environment)
    run, chunk = arrived.spans
    assert (run.name, chunk.name) == ("run", "chunk")
    assert run.trace_id == chunk.trace_id and chunk.parent_id == run.span_id
    assert run.service == "embedlake" and run.attributes == {"embedlake.run": "r"}
