"""The page of the experiments says what their results say."""

from __future__ import annotations

import re

import pytest

from experiments.faults.command import EXPERIMENTS
from experiments.fuzz.target import PROMISES, SERVE, TARGETS
from experiments.page import PAGE, RESULTS, SECTIONS, marks, stored_results, with_results
from experiments.peers.trials import TRIALS

RESULT = {
    "date": "2026-01-02",
    "versions": {"python": "3.11.7"},
    "injects": "a kill",
    "must_hold": "all is well",
    "possible": None,
    "injections": 1_200,
    "violations": [],
    "share_at_most": 0.0025,
    "endings": {"killed": 1_200},
    "counts": {"amid filling": 700},
}
CAMPAIGN = {
    "date": "2026-01-02",
    "versions": {"python": "3.11.7"},
    "seed": 3,
    "inputs": 1_200,
    "violations": [],
    "share_at_most": 0.0025,
    "slowest_cpu_seconds": 0.26,
    "largest_mib": 12.4,
}
OUTCOME = {
    "versions": {"lancedb": "0.40.0"},
    "injections": 30,
    "violations": [],
    "share_at_most": 0.1,
    "counts": {},
}


def page_of(section: str) -> str:
    """A page with an old table of a section."""
    begin, end = marks(section)
    return f"before\n{begin}stale\n{end}after\n"


def test_reliability_page_agrees_with_the_results() -> None:
    page = PAGE.read_text()
    assert page == with_results(page, stored_results(RESULTS)), "run python -m experiments.page"


def test_reliability_page_has_every_section_experiment_and_target() -> None:
    page = PAGE.read_text()
    assert all(mark in page for section in SECTIONS for mark in marks(section))
    assert [name for name in EXPERIMENTS if f"| `faults-{name}` |" not in page] == []
    assert PROMISES.keys() == {*TARGETS, SERVE}
    results = stored_results(RESULTS)
    read = [what for target, (what, _) in PROMISES.items() if f"fuzz-{target}" in results]
    done = [trial.injects for name, trial in TRIALS.items() if f"peers-{name}" in results]
    assert [words for words in (*read, *done) if f"| {words} |" not in page] == []


def test_page_has_a_row_for_each_result() -> None:
    page = with_results(page_of("results"), {"faults-kills": RESULT})
    assert page.startswith("before\n") and page.endswith("after\n") and "stale" not in page
    assert "| `faults-kills` | a kill | all is well | - | 1,200 | 0 | 0.25% |" in page
    assert "On 2026-01-02, with python 3.11.7.\n" in page
    assert "- `faults-kills`: killed 1,200, amid filling 700\n" in page


@pytest.mark.parametrize(("violations", "cells"), [([], "0 | 0.25%"), (["kill 3: lost"], "1 | -")])
def test_page_gives_a_bound_only_without_violations(violations: list[str], cells: str) -> None:
    share = RESULT["share_at_most"] if not violations else None
    result = RESULT | {"violations": violations, "share_at_most": share}
    page = with_results(page_of("results"), {"faults-x": result})
    assert re.search(re.escape(f"| {cells} |"), page)


def test_page_has_a_row_for_each_campaign_in_the_order_of_the_promises() -> None:
    unmeasured = {name: CAMPAIGN[name] for name in CAMPAIGN if not name.endswith(("onds", "mib"))}
    broken = unmeasured | {"violations": ["a status of 500"], "share_at_most": None}
    results = {"fuzz-serve": broken, "fuzz-json": CAMPAIGN, "fuzz-jsonl": CAMPAIGN}
    page = with_results(page_of("campaigns"), results)
    first, second, third = (line for line in page.splitlines() if "1,200" in line)
    assert first.startswith("| JSON lines | documents and rejects")
    assert second == "| JSON | the same | 1,200 | 0 | 0.25% | 0.3 | 12 |"
    assert third.startswith("| the API of `serve` |") and third.endswith("1,200 | 1 | - | - | - |")
    assert "Seed 3." in page


def test_page_has_a_row_for_each_peer_of_a_trial() -> None:
    counts = {"twice": 2, "half": 9, "said done when it was not": 1}
    wrong = OUTCOME | {"violations": ["twice"] * 2, "share_at_most": None, "counts": counts}
    peers = {"embedlake": OUTCOME, "a script": wrong}
    trial = {"date": "2026-01-02", "injects": "a kill", "peers": peers}
    page = with_results(page_of("peers"), {"peers-kills": trial})
    assert "| a kill | embedlake | 30 | 0 | 10.00% | 0 | 0 |\n" in page
    assert "|  | a script | 30 | **2**: twice 2 | - | 1 | 0 |\n" in page
    assert "a script: lancedb 0.40.0" in page
