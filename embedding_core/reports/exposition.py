"""Tables and their runs as metrics, in Prometheus' text format.

Moments are exported, not ages: an age would stop to grow when its exporter stops.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import get_args

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from embedding_core.runs.outcome import Outcome
from embedding_core.runs.watched.run_record import Kind, RunRecord
from embedding_core.runs.watched.table_figures import TableFigures


@dataclass(frozen=True, slots=True)
class Metric:
    """A gauge with a label ``table``, and at most one other."""

    help: str
    label: str | None = None


OF_TABLES: Mapping[str, Metric] = {
    "embedlake_table_readable": Metric("1: the table could be read; 0: the log says why not."),
    "embedlake_table_rows": Metric("Rows of the table."),
    "embedlake_rejects": Metric("What is left out now, by reason.", "reason"),
    "embedlake_index_recall": Metric("Recall@10 of the vector index, as last measured."),
    "embedlake_index_recall_target": Metric("Recall@10 that the recipe asks for."),
    "embedlake_lock_since_timestamp_seconds": Metric("When a held lock was taken.", "kind"),
    "embedlake_lock_renewed_timestamp_seconds": Metric("When its holder last renewed it.", "kind"),
}
OF_RUNS: Mapping[str, Metric] = {
    "good_timestamp_seconds": Metric("When a run last ended well."),
    "started_timestamp_seconds": Metric("When the last run with work began."),
    "updated_timestamp_seconds": Metric("When a run was last heard of."),
    "under_way": Metric("1: a run goes on, or died without a word."),
    "outcome": Metric("1 for how the last run ended.", "outcome"),
    "seconds": Metric("Wall clock of the run, so far."),
    "tokens": Metric("Tokens of the run, so far."),
    "tokens_per_second": Metric("Tokens by the run's wall clock."),
    "chunks": Metric("Chunks of the run, by what became of them.", "outcome"),
    "units": Metric("Work units of the run: queue or done.", "state"),
    "commits": Metric("Commits of the run."),
    "rejects": Metric("Rejects that the run recorded."),
    "fallbacks": Metric(
        "Rows computed in a wider type, and times that batches became smaller.", "kind"
    ),
    "batch_fill_ratio": Metric("How full the model's batches were, 1 at most."),
    "stage_seconds": Metric("Seconds of all workers together.", "stage"),
    "cost": Metric("What the run's work costs, at EMBEDLAKE_PRICE_PER_HOUR."),
}
KINDS: tuple[Kind, ...] = get_args(Kind)
METRICS: Mapping[str, Metric] = {
    **OF_TABLES,
    **{f"embedlake_{kind}_{name}": metric for kind in KINDS for name, metric in OF_RUNS.items()},
}
"""Every metric of tables, of their runs and of their builds, by name."""

Samples = Iterator[tuple[str, str | None, float]]
"""A metric's name, the value of its other label, and the sample."""


def exposition(figures: Iterable[TableFigures], unreadable: Iterable[str] = ()) -> bytes:
    """The metrics of some tables, and the names of those that could not be read, as text."""
    registry = CollectorRegistry()
    registry.register(TableCollector(lambda: (list(figures), list(unreadable))))
    return generate_latest(registry)


class TableCollector(Collector):
    """Gives a registry the figures of tables as they are when it is asked."""

    def __init__(self, look: Callable[[], tuple[Iterable[TableFigures], Iterable[str]]]) -> None:
        """``look`` gives the figures, and the names of tables that cannot be read."""
        self._look = look

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """The metrics without samples, so that registering looks at no table."""
        return [_family(name) for name in METRICS]

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """The metrics that have samples now."""
        families = {name: _family(name) for name in METRICS}
        figures, unreadable = self._look()
        for table in figures:
            for name, value, sample in _samples(table):
                labels = [table.table] if value is None else [table.table, value]
                families[name].add_metric(labels, sample)
        for table_name in unreadable:
            families["embedlake_table_readable"].add_metric([table_name], 0)
        return [family for family in families.values() if family.samples]


def _family(name: str) -> GaugeMetricFamily:
    metric = METRICS[name]
    labels = ["table", *([metric.label] if metric.label is not None else [])]
    return GaugeMetricFamily(name, metric.help, labels=labels)


def _samples(figures: TableFigures) -> Samples:
    yield "embedlake_table_readable", None, 1
    yield "embedlake_table_rows", None, figures.rows
    for reason, count in figures.rejects.items():
        yield "embedlake_rejects", reason, count
    if figures.recall is not None:
        yield "embedlake_index_recall", None, figures.recall
        yield "embedlake_index_recall_target", None, figures.recall_target
    for lock in figures.locks:
        yield "embedlake_lock_since_timestamp_seconds", lock.kind, lock.since
        yield "embedlake_lock_renewed_timestamp_seconds", lock.kind, lock.renewed
    for kind, run in zip(KINDS, (figures.run, figures.build), strict=True):
        if run is not None:
            for name, value, sample in _run_samples(run):
                yield f"embedlake_{kind}_{name}", value, sample


def _run_samples(run: RunRecord) -> Samples:
    is_running = run.state == "running"
    if run.good_at is not None:
        yield "good_timestamp_seconds", None, run.good_at
    yield "started_timestamp_seconds", None, run.started_at
    yield "updated_timestamp_seconds", None, run.updated_at
    yield "under_way", None, is_running
    if not is_running:
        for outcome in get_args(Outcome):
            yield "outcome", outcome, run.state == outcome
    yield "seconds", None, run.seconds
    yield "tokens", None, run.tokens
    yield "tokens_per_second", None, run.tokens / run.seconds if run.seconds else 0
    for outcome, count in run.chunks.items():
        yield "chunks", outcome, count
    yield "units", "queue", run.units - run.units_done
    yield "units", "done", run.units_done
    yield "commits", None, run.commits
    yield "rejects", None, run.rejects
    yield "fallbacks", "wider_type", run.recomputed
    yield "fallbacks", "smaller_batch", run.halvings
    if run.batch_fill is not None:
        yield "batch_fill_ratio", None, run.batch_fill
    for stage, seconds in asdict(run.stages).items():
        yield "stage_seconds", stage, seconds
    if run.cost is not None:
        yield "cost", None, run.cost
