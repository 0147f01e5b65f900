"""Plans and reports in words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from embedding_core.lake.rows.verification import Verification
from embedding_core.plurals import counted
from embedding_core.records import Plan
from embedding_core.reports.plan import PlanView
from embedding_core.reports.report import LINES_SHOWN, table, text_block
from embedding_core.reports.run import RunView
from embedding_core.runs.embed.finish_stage import RunReport
from embedding_core.runs.embed.planning import plan
from embedding_core.runs.outcome import Outcome
from tests.driver import recipe_for, run, write_jsonl


@pytest.fixture
def report(tmp_path: Path) -> RunReport:
    """The report of a real run over two documents, one of them empty."""
    write_jsonl(tmp_path, "a.jsonl", {"x": "some words", "y": " "})
    return run(recipe_for(tmp_path))


def plan_of(folder: Path) -> Plan:
    return plan(recipe_for(folder))


def test_plan_lines_first_run_lists_what_comes_and_what_it_costs(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path, "a.jsonl", {"x": "some words"})
    lines = PlanView(plan_of(tmp_path)).lines()
    assert lines[0] == "1 file to add, 0 to replace, 0 moved, 0 to remove, 0 unchanged"
    assert lines[1] == "  no table there: everything is embedded (if there was one, it is gone)"
    assert lines[2] == f"  + {path}  (new file)"
    assert lines[3].startswith(f"{path.stat().st_size} bytes, about 1 chunk and 2 tokens")
    assert "rate" not in lines[3]  # nothing was measured yet


def test_plan_lines_later_run_tells_changed_removed_unreadable_and_the_time(
    tmp_path: Path,
) -> None:
    changed = write_jsonl(tmp_path, "changed.jsonl", {"x": "before"})
    removed = write_jsonl(tmp_path, "removed.jsonl", {"x": "words"})
    write_jsonl(tmp_path, "same.jsonl", {"x": "words"})
    run(recipe_for(tmp_path))
    write_jsonl(tmp_path, "changed.jsonl", {"x": "after"})
    removed.unlink()
    unreadable = tmp_path / "src" / "gone.jsonl"
    unreadable.symlink_to(tmp_path / "nowhere")
    lines = PlanView(plan_of(tmp_path)).lines()
    assert lines[0] == "0 files to add, 1 to replace, 0 moved, 1 to remove, 1 unchanged"
    assert f"  ~ {changed}  (content changed)" in lines
    assert f"  - {removed}  (left the source)" in lines
    assert any(line.startswith(f"  ! {unreadable}  (") for line in lines)
    assert lines[-1].endswith(" s at the rate measured so far")


def test_plan_lines_nothing_to_do_is_one_line(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"x": "words"})
    run(recipe_for(tmp_path))
    assert PlanView(plan_of(tmp_path)).lines() == [
        "Nothing to do: the table holds its only file as it is."
    ]


def test_plan_lines_tell_what_is_passed_over_in_the_source(tmp_path: Path) -> None:
    for name in ("a.jsonl", "_SUCCESS", "_temporary/b.jsonl", "c.xyz", "drafts/d.jsonl"):
        write_jsonl(tmp_path, name, {"x": "words"})
    recipe = recipe_for(tmp_path, source={"exclude": ["drafts"]})
    said = (
        "passed over in the source: 2 that begin with _ or ., 1 that source.exclude names, 1 "
        "of no format that is read, or not in source.include"
    )
    assert said in PlanView(plan(recipe)).lines()
    run(recipe)
    assert PlanView(plan(recipe)).lines()[1:] == [said]


def test_plan_lines_many_files_says_how_many_are_not_shown(tmp_path: Path) -> None:
    for number in range(LINES_SHOWN + 5):
        write_jsonl(tmp_path, f"{number}.jsonl", {"x": "words"})
    lines = PlanView(plan_of(tmp_path)).lines()
    assert sum(line.startswith("  + ") for line in lines) == LINES_SHOWN
    assert "  … and 5 more (all with --json)" in lines


def test_report_lines_tell_ledger_rejects_and_verification(report: RunReport) -> None:
    lines = RunView(report).lines()
    assert "files: 1 added, 0 replaced, 0 moved, 0 removed, 0 unchanged, 0 unreadable" in lines
    ledger = "1 document, 1 chunk = 1 embedded + 0 reused + 0 dropped + 0 failed"
    assert f"ledger: {ledger}" in lines
    assert "rejects: 1 empty_text (`embedlake status RECIPE --rejects` lists them)" in lines
    assert lines[-1] == "verified: 1 file, 1 row, no problem"
    assert not any("half precision" in line or "index" in line for line in lines)


def test_report_lines_failed_run_names_units_and_problems(report: RunReport) -> None:
    failed = replace(
        report,
        failures=("a.jsonl: no answer from the store",),
        verification=Verification(1, 0, ("a.jsonl: 0 rows in the table, 1 counted",)),
        recomputed=3,
        outcome="failed",
    )
    lines = RunView(failed).lines()
    assert "VERIFICATION FAILED: 1 problem" in lines
    assert "  a.jsonl: 0 rows in the table, 1 counted" in lines
    assert lines[-1] == "FAILED: a.jsonl: no answer from the store"
    assert "half precision overflowed for 3 rows: computed wider" in lines
    assert not any(line.startswith("verified") for line in lines)


@pytest.mark.parametrize(
    ("exit_code", "outcome", "words"),
    [(0, "done", "done:"), (1, "failed", "failed:"), (3, "rejected", "finished with rejects:")],
)
def test_run_summary_begins_with_the_outcome(
    report: RunReport, exit_code: int, outcome: Outcome, words: str
) -> None:
    ended = replace(report, outcome=outcome)
    assert RunView(ended).summary().startswith(words)
    assert RunView(ended).data()["summary"] == RunView(ended).summary()
    assert RunView(ended).data()["exit_code"] == exit_code


def test_plan_markdown_has_each_file_with_its_reason(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a|b.jsonl", {"x": "some words"})
    page = PlanView(plan_of(tmp_path), 1.25).markdown()
    assert "| file | change | why |" in page
    assert "a\\|b.jsonl | added | new file |" in page
    assert "about 1.25 at EMBEDLAKE_PRICE_PER_HOUR" in page and "  + " not in page


def test_run_markdown_has_counts_rejects_by_reason_and_the_command(report: RunReport) -> None:
    page = RunView(report).markdown()
    assert "| embedded | 1 |" in page and "| empty\\_text | 1 |" in page
    assert "embedlake status RECIPE --rejects" in page


def test_table_cells_cannot_end_their_cell() -> None:
    assert table(("a",), [["x | y\n`z` &lt;"]]).splitlines()[-1] == "| x \\| y \\`z\\` \\&lt; |"


def test_text_block_is_ended_by_no_line() -> None:
    assert text_block(["a", "```", "<img>"]) == "````\na\n```\n<img>\n````"


@pytest.mark.parametrize(
    ("number", "noun", "words"),
    [(0, "file", "0 files"), (1, "file", "1 file"), (1, "query", "1 query"),
     (2_000, "labelled query", "2,000 labelled queries"), (3, "index", "3 indexes")],
)  # fmt: skip
def test_number_of_things_is_said_as_people_say_it(number: int, noun: str, words: str) -> None:
    assert counted(number, noun) == words
