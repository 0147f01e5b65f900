"""The checks of the release gate and their verdict: each takes the evidence and gives findings.

What the recipe's ``release`` section limits can fail; so can what no space may have (vectors that
are missing, not finite, not of unit length or all alike) and an index that finds too little. The
rest is said, not judged: other results and other scores are what a new model is for.

The rule for nDCG@10 is one of non-inferiority: the new space may be worse by a margin, and no more.
By default the measured mean decides. A few hundred queries give an interval several times as wide
as a margin of 0.01, so asking for proof would refuse models that are as good as the old one;
``release.strict`` asks for it all the same: then the whole interval must be above the margin, as in
clinical trials (Piaggio et al. 2012, doi:10.1001/jama.2012.87802).

A check is one function and one line of ``GATE_CHECKS``, or an entry point of somebody's package.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from embedding_core.plurals import counted
from embedding_core.quality.bridge import LEAST_KEPT
from embedding_core.quality.drift import QUANTILES
from embedding_core.quality.evidence import Evidence, Finding, Outcome, Verdict
from embedding_core.quality.health import Health
from embedding_core.recipe import ReleaseSpec
from embedding_core.registry import CHECKS, Registry

MOST_SHARED = 0.01
"""Share of rows that may share their vector with another text, beyond what the old space has."""
COLLAPSED = 0.99
"""Mean cosine of two rows above which a space counts as one point, unless the old one was too."""
SHARE_WORTH_SAYING = 0.1
"""A larger change of the share of results that pass a threshold is a warning to those who set
one."""
UNKNOWN_WORTH_SAYING = 0.1
"""A larger share of judged documents without a row may mean judgements of another table."""
FEW_QUERIES = 30
"""Below this a bootstrap interval is too narrow to be believed."""
EASY = 0.99
"""Mean nDCG@10 above which queries show gross damage only."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What a release must show."""

    release: ReleaseSpec
    target_recall: float
    """recall@10 that the new index must reach."""


class Check(Protocol):
    """One rule of the gate."""

    def __call__(self, evidence: Evidence, rules: Rules) -> Iterator[Finding]:
        """Findings of the evidence; none where the evidence has nothing to check."""
        ...


GATE_CHECKS = Registry[Check](
    CHECKS,
    {
        name: f"embedding_core.quality.checks:{name}"
        for name in (
            "ranking",
            "health",
            "index",
            "overlap",
            "scores",
            "latency",
            "bridge",
            "basis",
        )
    },
    Check,
)
ORDER: tuple[Outcome, ...] = ("failed", "warning", "passed", "info")
"""The order of findings in a report."""


def findings(evidence: Evidence, release: ReleaseSpec, target_recall: float) -> tuple[Finding, ...]:
    """What every check finds, failures first.

    Raises ``PluginError`` for a check that does not load: no space passes a gate that lacks one.
    """
    rules = Rules(release, target_recall)
    checks = [GATE_CHECKS.get(name) for name in GATE_CHECKS.names()]
    every = [finding for check in checks for finding in check(evidence, rules)]
    return tuple(sorted(every, key=lambda finding: ORDER.index(finding.outcome)))


def verdict_of(findings: Sequence[Finding]) -> Verdict:
    """No when a check failed."""
    return "no" if any(finding.outcome == "failed" for finding in findings) else "yes"


def ranking(evidence: Evidence, rules: Rules) -> Iterator[Finding]:
    """Compare nDCG@10, and say how far the comparison can be trusted."""
    release = rules.release
    compared, limit = evidence.metrics["ndcg@10"], release.max_ndcg_drop
    change = compared.difference
    kind = "labelled" if evidence.queries_kind == "labelled" else "self-made known-item"
    sentence = (
        f"nDCG@10 {compared.old.mean:.4f} -> {compared.new.mean:.4f} on {evidence.queries:,} "
        f"{kind} queries: {change.mean:+.4f} (95 % {change.low:+.4f} to {change.high:+.4f}), "
        f"{limit:g} may be lost"
    )
    failed = change.mean < -limit
    if release.strict and not failed and change.low < -limit:
        failed = True
        sentence += "; release.strict: the interval reaches further, give more labelled queries"
    yield Finding("ndcg@10", "failed" if failed else "passed", change.mean, -limit, sentence)
    if evidence.queries < FEW_QUERIES:
        yield Finding(
            "few queries", "failed" if release.strict else "warning", evidence.queries, FEW_QUERIES,
            f"only {counted(evidence.queries, 'query counts', 'queries count')}: the metrics hang "
            f"on single documents, and the intervals are too narrow; label at least {FEW_QUERIES}",
        )  # fmt: skip
    if not failed and change.low < -limit:
        yield Finding(
            "certainty", "warning", change.low, -limit,
            f"a loss of up to {-change.low:.4f} cannot be ruled out: the interval is that wide; "
            "four times as many queries halve it (release.strict would refuse)",
        )  # fmt: skip
    if min(compared.old.mean, compared.new.mean) >= EASY:
        yield Finding(
            "easy queries", "info", compared.old.mean, None,
            "both spaces answer nearly every query: these show gross damage, not which is better",
        )  # fmt: skip


def health(evidence: Evidence, rules: Rules) -> Iterator[Finding]:
    """Fail what no space may have: vectors that are missing, not finite, not unit, or all alike."""
    new, old = evidence.health.new, evidence.health.old
    faults = [*_counted(new), *_alike(old, new)]
    yield from faults
    if not faults:
        yield Finding(
            "health", "passed", None, None,
            f"{counted(new.rows, 'vector')}: all there, finite, of unit length, and told apart",
        )  # fmt: skip
    if old.missing:
        yield Finding(
            "old vectors", "warning", old.missing, None,
            f"{counted(old.missing, 'row has', 'rows have')} no vector in the old space: it looks "
            "worse than it was",
        )  # fmt: skip


def index(evidence: Evidence, rules: Rules) -> Iterator[Finding]:
    """Hold the new index's recall against the recipe's; nothing for rows that are no table."""
    ann, target = evidence.ann, rules.target_recall
    if ann is None:
        return
    if ann.new.index is None:
        sentence = "the new column has no index: its searches are exact"
        if ann.old.index is not None:
            sentence += ", and slower than those of the old one; build its index before it serves"
        outcome: Outcome = "info" if ann.old.index is None else "warning"
        yield Finding("index", outcome, None, None, sentence)
        return
    yield Finding(
        "index", "passed" if ann.new.recall >= target else "failed", ann.new.recall, target,
        f"the new index ({ann.new.index}) finds {ann.new.recall:.3f} of the exact first 10, the "
        f"old one {ann.old.recall:.3f}; index.target_recall is {target:g}",
    )  # fmt: skip


def overlap(evidence: Evidence, rules: Rules) -> Iterator[Finding]:
    """Say how many of the old results stay; a recipe may limit it."""
    drift = evidence.drift
    if drift is None:
        yield Finding(
            "overlap", "failed", None, None, "no query finds anything in one of the two spaces"
        )
        return
    limit = rules.release.min_overlap
    outcome: Outcome = "info"
    if limit is not None:
        outcome = "passed" if drift.overlap_10 >= limit else "failed"
    yield Finding(
        "overlap", outcome, drift.overlap_10, limit,
        f"{drift.overlap_10:.0%} of the old first 10 documents are among the new first 10, "
        f"{drift.same_first:.0%} of the queries keep their first; a document moves by "
        f"{drift.median_rank_shift:.0f} places in the median, {drift.lost_share:.0%} leave the "
        "first 100",
    )  # fmt: skip


def scores(evidence: Evidence, rules: Rules) -> Iterator[Finding]:
    """Say what a threshold on the score lets through now."""
    drift = evidence.drift
    if drift is None:
        return
    worst = max(
        drift.thresholds, key=lambda threshold: abs(threshold.new_share - threshold.old_share)
    )
    moved = worst.new_share - worst.old_share
    middle = len(QUANTILES) // 2
    before, after = drift.top_scores.old[middle], drift.top_scores.new[middle]
    yield Finding(
        "scores", "warning" if abs(moved) > SHARE_WORTH_SAYING else "info", moved, None,
        f"the median score of the first 10 goes from {before:.3f} to {after:.3f}: a threshold at "
        f"{worst.score:.3f}, which {worst.old_share:.0%} of the old results pass, lets "
        f"{worst.new_share:.0%} of the new ones through",
    )  # fmt: skip


def latency(evidence: Evidence, rules: Rules) -> Iterator[Finding]:
    """Compare the times of a search; a recipe may limit their ratio."""
    medians = evidence.latency
    if medians is None:
        return
    ratio, limit = medians.new / medians.old, rules.release.max_latency_ratio
    outcome: Outcome = "info"
    if limit is not None:
        outcome = "passed" if ratio <= limit else "failed"
    yield Finding(
        "latency", outcome, ratio, limit,
        f"a search takes {medians.new:.1f} ms in the median, {medians.old:.1f} ms in the old space",
    )  # fmt: skip


def bridge(evidence: Evidence, rules: Rules) -> Iterator[Finding]:
    """Say what queries of the new model would find at once, on the old vectors."""
    quality = evidence.bridge
    if quality is None:
        return
    compared = quality.metrics["ndcg@10"]
    cosine = (
        ""
        if quality.cosine is None
        else f"; mapped rows have a cosine of {quality.cosine:.3f} to their old vectors"
    )
    yield Finding(
        "bridge", "info" if quality.is_enough else "warning", quality.kept, LEAST_KEPT,
        f"through a bridge, queries of the new model have nDCG@10 {compared.new.mean:.4f} on the "
        f"old vectors, {quality.kept:.0%} of the old model's {compared.old.mean:.4f}{cosine}"
        + ("" if quality.is_enough else f"; too little to be kept: at least {LEAST_KEPT:.0%}"),
    )  # fmt: skip


def basis(evidence: Evidence, rules: Rules) -> Iterator[Finding]:
    """Say what the numbers rest on: whose queries, which documents, which rows."""
    if evidence.queries_kind == "known-item":
        yield Finding(
            "queries", "warning", evidence.queries, None,
            f"no labelled queries: {evidence.queries:,} were made from the rows (a title or a "
            "first sentence must find its document). They show damage, not which model understands "
            "people better; name release.queries and release.qrels",
        )  # fmt: skip
    if evidence.unknown_documents:
        share = evidence.unknown_documents / evidence.judged_documents
        expected = evidence.sampled_share is not None or share <= UNKNOWN_WORTH_SAYING
        yield Finding(
            "judgements", "info" if expected else "warning", share, None,
            f"{evidence.unknown_documents:,} of "
            f"{counted(evidence.judged_documents, 'judged document is', 'judged documents are')} "
            f"not among the rows and do not count; "
            f"{counted(evidence.queries_left_out, 'query has', 'queries have')} no "
            "relevant document left",
        )  # fmt: skip
    if evidence.sampled_share is not None:
        yield Finding(
            "sample", "info", evidence.sampled_share, None,
            f"judged on {counted(evidence.rows, 'row')}, {evidence.sampled_share:.2%} of the "
            "table: fewer rows are easier to search, so means are higher than on all of them",
        )  # fmt: skip


def _counted(new: Health) -> Iterator[Finding]:
    for name, n_wrong, fault in (
        ("missing vectors", new.missing, "rows have no vector"),
        ("finite vectors", new.non_finite, "vectors hold NaN or inf"),
        ("unit length", new.off_norm, "vectors are not of unit length"),
        ("query vectors", new.queries_without_vector, "queries have no vector"),
    ):
        if n_wrong:
            sentence = f"{n_wrong:,} {fault} in the new space; check the model's weights and dtype"
            yield Finding(name, "failed", n_wrong, 0, sentence)


def _alike(old: Health, new: Health) -> Iterator[Finding]:
    limit = old.shared + MOST_SHARED
    if new.shared > limit:
        yield Finding(
            "different texts", "failed", new.shared, limit,
            f"{new.shared:.1%} of the rows share their vector with another text ({old.shared:.1%} "
            "in the old space): the model does not tell them apart",
        )  # fmt: skip
    if old.mean_cosine is None or new.mean_cosine is None:
        return
    if new.mean_cosine > COLLAPSED >= old.mean_cosine:
        yield Finding(
            "collapse", "failed", new.mean_cosine, COLLAPSED,
            f"two rows have a cosine of {new.mean_cosine:.3f} in the mean ({old.mean_cosine:.3f} "
            "in the old space): the vectors are all alike",
        )  # fmt: skip
