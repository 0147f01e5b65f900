"""Evidence about two spaces, and a finding of a check: what the gate judges by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from embedding_core.quality.bridge import BridgeQuality
from embedding_core.quality.drift import Drift
from embedding_core.quality.health import Health
from embedding_core.quality.metrics import Comparison
from embedding_core.quality.oldnew import OldNew

Outcome = Literal["passed", "failed", "warning", "info"]
"""``failed`` makes the verdict no; ``warning`` is worth a person's look."""
QueryKind = Literal["labelled", "known-item"]
Verdict = Literal["yes", "no"]


@dataclass(frozen=True, slots=True)
class Ann:
    """How well a column's index finds what exact search finds."""

    index: str | None
    """Kind of the index; None when the column has none and every search is exact."""
    recall: float
    """Mean recall@10 for 200 of the column's own vectors; 1 without an index."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Measurements of the two spaces."""

    queries_kind: QueryKind
    """``labelled``: people's queries and judgements; ``known-item``: made from the rows."""
    queries: int
    """Queries that count: a relevant document has a row."""
    queries_left_out: int
    """Labelled queries without a relevant document among the rows."""
    judged_documents: int
    """Documents that the judgements, or the known items, name."""
    unknown_documents: int
    """Judged documents without a row; they count in no metric."""
    rows: int
    """Rows that were searched."""
    sampled_share: float | None
    """Share of the table's rows that were searched; None when it was all of them."""
    metrics: dict[str, Comparison]
    """``ndcg@10``, ``recall@10``, ``recall@100``, ``mrr@10``, by exact search."""
    drift: Drift | None
    """None when no query found anything in one of the spaces."""
    health: OldNew[Health]
    ann: OldNew[Ann] | None
    """None when the rows are no table."""
    latency: OldNew[float] | None
    """Median milliseconds of one warm search by vector; None when the rows are no table."""
    bridge: BridgeQuality | None
    """Queries of the new model on the old vectors; None when nobody fitted a bridge."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check says of one thing."""

    name: str
    outcome: Outcome
    measured: float | None
    limit: float | None
    """The bound of ``measured``; None when there is no limit."""
    sentence: str
