"""What a server counts and times, for Prometheus."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

from embedding_core.recipe import Recipe
from embedding_core.reports.exposition import TableCollector
from embedding_core.server.answering.watched_tables import WatchedTables

SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
"""Bounds of the buckets of a time."""
TOGETHER = (1, 2, 4, 8, 16, 32, 64)
"""Bounds of the buckets of queries in a forward pass."""


class Telemetry:
    """The figures of one server, apart from those of others in the process."""

    def __init__(self, recipes: Sequence[Recipe] = ()) -> None:
        """``recipes``: of the tables that it answers from."""
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        self._registry.register(TableCollector(WatchedTables(recipes).look))
        self.requests = Counter(
            "embedlake_requests",
            "Requests that were answered.",
            ["route", "status"],
            registry=self._registry,
        )
        self.seconds = Histogram(
            "embedlake_query_seconds",
            "Time of a query: in the model's forward pass, in the table, and in all.",
            ["table", "stage"],
            buckets=SECONDS,
            registry=self._registry,
        )
        self.together = Histogram(
            "embedlake_queries_together",
            "Queries in one forward pass.",
            buckets=TOGETHER,
            registry=self._registry,
        )
        self.under_way = Gauge(
            "embedlake_requests_under_way", "Requests under way.", registry=self._registry
        )
        self.refused = Counter(
            "embedlake_requests_refused",
            "Requests that were asked to come again.",
            registry=self._registry,
        )
        self.version = Gauge(
            "embedlake_table_version",
            "The version that answers.",
            ["table", "space"],
            registry=self._registry,
        )
        self.feedback = Counter(
            "embedlake_feedback",
            "Feedback that was stored.",
            ["table", "signal"],
            registry=self._registry,
        )

    def text(self) -> bytes:
        """All figures in Prometheus' text format; may wait for the store."""
        return generate_latest(self._registry)
