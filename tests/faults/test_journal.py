"""Which injections are made, and what their journal adds up to."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from experiments.faults.child import Ending
from experiments.faults.injections import Choice, Point, Tally, numbered
from experiments.faults.journal import Journal, result

POINTS = numbered("kill", 400) + numbered("stop", 30)
MADE = Ending(137)


def tally_of(ending: Ending, *violations: str) -> Tally:
    tally = Tally(violations=list(violations), counts=Counter(seen=2))
    tally.injected(ending)
    return tally


def test_choice_takes_some_of_each_kind_in_an_order_of_the_seed() -> None:
    chosen = Choice(20, seed=1).of(POINTS)
    assert Counter(point.kind for point in chosen) == {"kill": 20, "stop": 20}
    assert chosen == Choice(20, seed=1).of(POINTS) != Choice(20, seed=2).of(POINTS)
    assert sorted(Choice(None, seed=1).of(POINTS)) == sorted(POINTS)


def test_choice_of_more_has_all_of_the_choice_of_fewer() -> None:
    few, many = Choice(5, seed=3), Choice(9, seed=3)
    assert set(few.of(POINTS)) < set(many.of(POINTS))
    more_points = POINTS + numbered("stall", 10)
    assert set(few.of(POINTS)) < set(few.of(more_points))


def test_result_adds_up_the_lines_of_a_journal(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.add(Point("kill", 7), tally_of(MADE), 1.5, "abc")
    journal.add(Point("stop", 2), tally_of(Ending(0)), 2.0, "abc")
    journal.add(Point("stop", 3), Tally(), 1.0, "def")
    summed = result(journal, {"chosen": 3})
    assert summed == {
        "chosen": 3,
        "commits": ["abc", "def"],
        "by_kind": {"kill": 1, "stop": 2},
        "injections": 2,
        "violations": [],
        "share_at_most": 1.5,
        "endings": {"done": 1, "killed": 1},
        "counts": {"seen": 4},
        "seconds": 4,
    }


def test_result_names_the_injection_of_a_violation(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.add(Point("kill", 7), tally_of(MADE, "a row is missing"), 1.5, "abc")
    summed = result(journal, {})
    assert summed["violations"] == ["kill 7: a row is missing"]
    assert summed["share_at_most"] is None


def test_tally_counts_a_run_that_does_not_end_as_a_violation() -> None:
    tally = Tally()
    tally.injected(Ending(-9, error="Hang: no end after 120 s", is_hang=True))
    assert tally.violations == ["Hang: no end after 120 s"]


def test_journal_leaves_out_a_line_that_was_cut_off(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.add(Point("kill", 1), Tally(), 0.0, "")
    with journal.path.open("a") as file:
        file.write('{"kind": "kill", "num')
    assert journal.points() == {Point("kill", 1)}
