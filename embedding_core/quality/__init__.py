"""How well a ranking answers labelled queries: metrics with confidence intervals.

Knows rankings and grades, not how they were made.
"""

from embedding_core.quality.beir import read_qrels, read_queries
from embedding_core.quality.metrics import Interval, RetrievalScores, score_run

__all__ = ["Interval", "RetrievalScores", "read_qrels", "read_queries", "score_run"]
