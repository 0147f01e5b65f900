"""Spans by OpenTelemetry: one trace of a run, whatever processes its tasks run in.

The run's span travels with the job of each task. Nothing of OpenTelemetry is imported before
``set_up_traces`` is asked for traces.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from embedding_core.errors import SetupError
from embedding_core.watch.spans import Attribute, is_traced, trace_with
from embedlake.settings import patience_of_collectors

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

SERVICE = "embedlake"
"""Name of the service, unless ``OTEL_SERVICE_NAME`` is another."""
PREFIX = "embedlake."
"""Before the names of attributes."""


def set_up_traces(traces: str) -> None:
    """Send the spans of this process where ``OTEL_EXPORTER_OTLP_*`` say if ``traces`` is ``otlp``;
    again changes nothing. Raises ``SetupError`` when the extra is not installed."""
    if traces != "otlp" or is_traced():
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ModuleNotFoundError as error:
        raise SetupError(
            f"EMBEDLAKE_TRACES=otlp needs {error.name}, which is not installed; "
            "pip install 'embedlake[otel]' on every node, or unset the variable"
        ) from error
    trace_with(OpenTelemetry(OTLPSpanExporter(timeout=patience_of_collectors())))


class OpenTelemetry:
    """A ``Tracer`` that exports each span when it ends: a worker may be stopped at any moment."""

    def __init__(self, exporter: SpanExporter) -> None:
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        resource = Resource.create()
        if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
            resource = resource.merge(Resource({SERVICE_NAME: SERVICE}))
        provider = TracerProvider(resource=resource)
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        self._tracer = provider.get_tracer(SERVICE)
        self._propagator = TraceContextTextMapPropagator()

    def span(
        self, name: str, parent: str, attributes: Mapping[str, Attribute]
    ) -> AbstractContextManager[object]:
        """See ``Tracer``. An error that leaves the context is recorded in the span."""
        context = self._propagator.extract({"traceparent": parent}) if parent else None
        named = {PREFIX + key: value for key, value in attributes.items()}
        return self._tracer.start_as_current_span(name, context, attributes=named)

    def current(self) -> str:
        """See ``Tracer``."""
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier)
        return carrier.get("traceparent", "")
