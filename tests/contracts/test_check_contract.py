"""What every check of the gate promises, whatever it looks at."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest

from embedding_core.quality import GATE_CHECKS, Evidence, Finding, Health, OldNew, Rules
from embedding_core.quality.bridge import BridgeQuality
from embedding_core.quality.checks import ORDER
from embedding_core.recipe import ReleaseSpec
from tests.quality.test_verdict import DRIFT, EQUAL, WELL, compared

ILL = Health(1_000, 3, 2, 1, 0.9, 0.999, 4)
EVIDENCE = {
    "equal spaces": EQUAL,
    "known items": replace(EQUAL, queries_kind="known-item", queries=5),
    "a sample": replace(EQUAL, ann=None, latency=None, sampled_share=0.1),
    "no answers": replace(EQUAL, drift=None),
    "an ill space": replace(EQUAL, metrics=compared(-0.4, -0.5), health=OldNew(WELL, ILL)),
    "an ill old space": replace(EQUAL, health=OldNew(ILL, WELL)),
    "unknown documents": replace(EQUAL, unknown_documents=150, queries_left_out=20),
    "a bridge": replace(EQUAL, bridge=BridgeQuality(compared(0.0, -0.005), 1.0, 0.9)),
    "a bridge that keeps little": replace(
        EQUAL, bridge=BridgeQuality(compared(-0.4, -0.5), 0.2, None)
    ),
    "scores that moved": replace(
        EQUAL, drift=replace(DRIFT, top_scores=OldNew((0.4,) * 5, (0.9,) * 5))
    ),
}
RULES = {
    "defaults": Rules(ReleaseSpec(), 0.95),
    "strict": Rules(ReleaseSpec(strict=True, min_overlap=0.9, max_latency_ratio=1.1), 0.99),
}


@pytest.fixture(params=GATE_CHECKS.names())
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
@pytest.mark.parametrize("evidence", EVIDENCE.values(), ids=EVIDENCE)
def test_check_gives_findings_that_a_report_can_hold(
    name: str, evidence: Evidence, rules: Rules
) -> None:
    findings = list(GATE_CHECKS.get(name)(evidence, rules))
    for finding in findings:
        assert isinstance(finding, Finding)
        assert finding.outcome in ORDER
        assert finding.name and finding.sentence
        json.dumps(asdict(finding), allow_nan=False)
    assert len({finding.name for finding in findings}) == len(findings)


def test_check_same_evidence_same_findings(name: str) -> None:
    check, rules = GATE_CHECKS.get(name), RULES["strict"]
    for evidence in EVIDENCE.values():
        assert list(check(evidence, rules)) == list(check(evidence, rules))


def test_check_equal_spaces_pass_by_default(name: str) -> None:
    findings = GATE_CHECKS.get(name)(EQUAL, RULES["defaults"])
    assert all(finding.outcome != "failed" for finding in findings)


def test_checks_findings_have_names_of_their_own() -> None:
    for evidence in EVIDENCE.values():
        names = [
            finding.name
            for check in GATE_CHECKS.working().values()
            for finding in check(evidence, RULES["strict"])
        ]
        assert len(set(names)) == len(names)
