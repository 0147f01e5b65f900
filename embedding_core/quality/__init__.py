"""How well vectors answer queries, and whether new vectors may replace old ones.

Metrics with confidence intervals, self-made queries, drift, health, and the checks of a release.
Knows rankings, grades and vectors, not how they were made.
"""

from embedding_core.quality.beir import read_qrels, read_queries
from embedding_core.quality.checks import GATE_CHECKS, Check, Rules
from embedding_core.quality.drift import QUANTILES, Drift, Threshold, drift_between
from embedding_core.quality.evidence import Ann, Evidence, Finding
from embedding_core.quality.exact import ByDocument, ExactRanking, Ranking
from embedding_core.quality.health import Health, HealthCheck
from embedding_core.quality.judgement import GateReport, JudgedSpace, Side, judge
from embedding_core.quality.known_item import KnownItem, known_items
from embedding_core.quality.labels import Labels, nothing_known, queries_from, read_labels
from embedding_core.quality.metrics import (
    Comparison,
    Interval,
    RetrievalScores,
    compare_runs,
    has_relevant,
    score_run,
)
from embedding_core.quality.oldnew import OldNew
from embedding_core.quality.verdict import findings, verdict_of

__all__ = [
    "GATE_CHECKS",
    "QUANTILES",
    "Ann",
    "ByDocument",
    "Check",
    "Comparison",
    "Drift",
    "Evidence",
    "ExactRanking",
    "Finding",
    "GateReport",
    "Health",
    "HealthCheck",
    "Interval",
    "JudgedSpace",
    "KnownItem",
    "Labels",
    "OldNew",
    "Ranking",
    "RetrievalScores",
    "Rules",
    "Side",
    "Threshold",
    "compare_runs",
    "drift_between",
    "findings",
    "has_relevant",
    "judge",
    "known_items",
    "nothing_known",
    "queries_from",
    "read_labels",
    "read_qrels",
    "read_queries",
    "score_run",
    "verdict_of",
]
