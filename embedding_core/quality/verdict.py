"""The verdict on a new space: every check's findings, and yes or no."""

from __future__ import annotations

from collections.abc import Sequence

from embedding_core.quality.checks import GATE_CHECKS, Rules
from embedding_core.quality.evidence import Evidence, Finding, Verdict
from embedding_core.recipe import ReleaseSpec

ORDER = ("failed", "warning", "passed", "info")


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
