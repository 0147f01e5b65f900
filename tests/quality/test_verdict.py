"""The rules: what each limit does to the verdict."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from embedding_core.errors import PluginError
from embedding_core.quality import (
    GATE_CHECKS,
    Ann,
    Comparison,
    Drift,
    Evidence,
    Finding,
    Health,
    Interval,
    OldNew,
    Threshold,
    checks,
    findings,
    verdict_of,
)
from embedding_core.recipe import ReleaseSpec
from embedding_core.registry import CHECKS
from tests.plugins import install, unread

TARGET_RECALL = 0.95
INDEX = Ann("IVF_SQ", 0.97)
WELL = Health(1_000, 0, 0, 0, 0.0, 0.1, 0)


def compared(change: float, low: float, old: float = 0.5) -> dict[str, Comparison]:
    """nDCG@10 that changes by ``change``, with an interval that begins at ``low``."""
    return {
        "ndcg@10": Comparison(
            Interval(old, old - 0.05, old + 0.05),
            Interval(old + change, old + change - 0.05, old + change + 0.05),
            Interval(change, low, 2 * change - low),
        )
    }


DRIFT = Drift(
    overlap_10=0.6,
    overlap_100=0.7,
    same_first=0.5,
    median_rank_shift=2.0,
    lost_share=0.1,
    first_scores=OldNew((0.5,) * 5, (0.5,) * 5),
    top_scores=OldNew((0.4,) * 5, (0.4,) * 5),
    thresholds=(Threshold(0.4, 0.5, 0.52),),
)
EQUAL = Evidence(
    queries_kind="labelled",
    queries=100,
    queries_left_out=0,
    judged_documents=200,
    unknown_documents=0,
    rows=1_000,
    sampled_share=None,
    metrics=compared(0.0, -0.005),
    drift=DRIFT,
    health=OldNew(WELL, WELL),
    ann=OldNew(INDEX, INDEX),
    latency=OldNew(2.0, 3.0),
    bridge=None,
)


def judged(evidence: Evidence, **rules: object) -> dict[str, Finding]:
    spec = ReleaseSpec.model_validate(rules)
    return {one.name: one for one in findings(evidence, spec, TARGET_RECALL)}


def failed(evidence: Evidence, **rules: object) -> list[str]:
    found = judged(evidence, **rules).values()
    names = [one.name for one in found if one.outcome == "failed"]
    assert verdict_of(list(found)) == ("no" if names else "yes")
    return names


def test_equal_spaces_pass() -> None:
    assert failed(EQUAL) == []
    assert judged(EQUAL)["health"].outcome == "passed"


def test_ndcg_mean_below_the_margin_fails() -> None:
    worse = replace(EQUAL, metrics=compared(-0.02, -0.03))
    assert failed(worse) == ["ndcg@10"]
    assert failed(worse, max_ndcg_drop=0.02) == []
    assert "-0.0200 (95 % -0.0300" in judged(worse)["ndcg@10"].sentence


def test_ndcg_interval_that_reaches_below_the_margin_warns_and_fails_only_when_strict() -> None:
    unsure = replace(EQUAL, metrics=compared(0.0, -0.03))
    assert failed(unsure) == [] and judged(unsure)["certainty"].outcome == "warning"
    assert failed(unsure, strict=True) == ["ndcg@10"]
    assert failed(EQUAL, strict=True) == [] and "certainty" not in judged(EQUAL)


@pytest.mark.parametrize(
    ("wrong", "finding"),
    [
        ({"missing": 1}, "missing vectors"),
        ({"non_finite": 1}, "finite vectors"),
        ({"off_norm": 1}, "unit length"),
        ({"queries_without_vector": 1}, "query vectors"),
        ({"shared": 0.02}, "different texts"),
        ({"mean_cosine": 0.995}, "collapse"),
    ],
)
def test_health_of_the_new_space_that_is_wrong_fails(wrong: dict[str, float], finding: str) -> None:
    ill = replace(WELL, **wrong)  # type: ignore[arg-type]
    assert failed(replace(EQUAL, health=OldNew(WELL, ill))) == [finding]
    assert "health" not in judged(replace(EQUAL, health=OldNew(WELL, ill)))


def test_health_that_was_no_better_before_passes() -> None:
    alike = replace(WELL, shared=0.3, mean_cosine=0.995)
    assert failed(replace(EQUAL, health=OldNew(alike, alike))) == []
    short = judged(replace(EQUAL, health=OldNew(replace(WELL, missing=5), WELL)))
    assert short["old vectors"].outcome == "warning"


def test_index_below_the_target_recall_fails() -> None:
    low = Ann("IVF_SQ", 0.9)
    assert failed(replace(EQUAL, ann=OldNew(INDEX, low))) == ["index"]
    assert failed(replace(EQUAL, ann=OldNew(low, INDEX))) == []


def test_index_that_is_missing_warns_only_where_the_old_space_has_one() -> None:
    none = Ann(None, 1.0)
    assert judged(replace(EQUAL, ann=OldNew(none, none)))["index"].outcome == "info"
    assert judged(replace(EQUAL, ann=OldNew(INDEX, none)))["index"].outcome == "warning"


def test_few_queries_warn_and_fail_when_strict() -> None:
    few = replace(EQUAL, queries=29)
    assert judged(few)["few queries"].outcome == "warning" and failed(few) == []
    assert failed(few, strict=True) == ["few queries"]


def test_overlap_and_latency_fail_only_where_the_recipe_limits_them() -> None:
    assert failed(EQUAL, min_overlap=0.6, max_latency_ratio=1.5) == []
    assert failed(EQUAL, min_overlap=0.61) == ["overlap"]
    assert failed(EQUAL, max_latency_ratio=1.4) == ["latency"]
    assert judged(EQUAL)["overlap"].outcome == judged(EQUAL)["latency"].outcome == "info"


def test_scores_that_move_across_thresholds_are_a_warning() -> None:
    moved = replace(DRIFT, thresholds=(Threshold(0.4, 0.95, 0.95), Threshold(0.5, 0.5, 0.9)))
    finding = judged(replace(EQUAL, drift=moved))["scores"]
    assert finding.outcome == "warning" and "0.500, which 50% of the old" in finding.sentence
    assert judged(EQUAL)["scores"].outcome == "info"


def test_space_that_finds_nothing_fails() -> None:
    assert failed(replace(EQUAL, drift=None)) == ["overlap"]


def test_basis_is_said_when_it_is_weak() -> None:
    made = judged(replace(EQUAL, queries_kind="known-item", metrics=compared(0.0, 0.0, 1.0)))
    assert "made from the rows" in made["queries"].sentence and "easy queries" in made
    assert "self-made known-item" in made["ndcg@10"].sentence
    unknown = replace(EQUAL, unknown_documents=100, queries_left_out=7)
    assert judged(unknown)["judgements"].outcome == "warning"
    sample = judged(replace(unknown, sampled_share=0.02))
    assert sample["judgements"].outcome == "info" and "2.00%" in sample["sample"].sentence
    assert judged(EQUAL).keys() == {"ndcg@10", "health", "index", "overlap", "scores", "latency"}


def test_findings_name_what_failed_first() -> None:
    bad = replace(EQUAL, metrics=compared(-0.1, -0.2), drift=None)
    assert list(judged(bad))[:2] == ["ndcg@10", "overlap"]


MODULE = """
from embedding_core.quality import Finding


def no_odd_rows(evidence, rules):
    if evidence.rows % 2:
        yield Finding("odd rows", "failed", evidence.rows, None, "the rows are odd")
"""


def test_check_of_a_plugin_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, tmp_path, "odd", MODULE, CHECKS, {"odd": "odd_plugin:no_odd_rows"})
    monkeypatch.setattr(checks, "GATE_CHECKS", unread(GATE_CHECKS))
    assert failed(EQUAL) == []
    assert failed(replace(EQUAL, rows=1_001)) == ["odd rows"]


def test_check_that_does_not_load_lets_no_space_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, tmp_path, "broken", "", CHECKS, {"lost": "broken_plugin:lost"})
    monkeypatch.setattr(checks, "GATE_CHECKS", unread(GATE_CHECKS))
    with pytest.raises(PluginError, match=r"'lost' .* of the package broken cannot be imported"):
        judged(EQUAL)
