"""How well vectors answer queries, and whether new vectors may replace old ones.

Metrics with confidence intervals, self-made queries, drift, health, and the checks of a release.
Knows rankings, grades and vectors, not how they were made.
"""

from embedding_core.quality.beir import read_qrels, read_queries
from embedding_core.quality.checks import GATE_CHECKS, Check, Rules, findings, verdict_of
from embedding_core.quality.drift import QUANTILES, Drift, Threshold, drift_between
from embedding_core.quality.evidence import Ann, Evidence, Finding
from embedding_core.quality.exact import ByDocument, ExactRanking, Ranking
from embedding_core.quality.health import Health, HealthCheck
from embedding_core.quality.known_item import KnownItem, known_items
from embedding_core.quality.metrics import (
    Comparison,
    Interval,
    RetrievalScores,
    compare_runs,
    has_relevant,
    score_run,
)
from embedding_core.quality.oldnew import OldNew

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
    "Health",
    "HealthCheck",
    "Interval",
    "KnownItem",
    "OldNew",
    "Ranking",
    "RetrievalScores",
    "Rules",
    "Threshold",
    "compare_runs",
    "drift_between",
    "findings",
    "has_relevant",
    "known_items",
    "read_qrels",
    "read_queries",
    "score_run",
    "verdict_of",
]
