"""Huge files in slices: what is in the table is what it would be without."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedding_core.errors import Transient
from embedding_core.lake import ledger
from embedding_core.lake.table import table_of
from embedding_core.recipe import Recipe, Resources
from embedding_core.records import EmbeddedUnit, WorkUnit
from embedding_core.runs.embed.execution import Begun, InProcess
from embedding_core.runs.embed.finish_stage import RunReport, RunTally, finish
from embedding_core.runs.embed.planning import plan
from embedding_core.runs.embed.scheduler import run_units
from embedding_core.runs.embed.units import work_units
from embedding_core.runs.table_status import file_lines
from embedding_core.sources import documents
from embedding_core.sources.formats import jsonl
from tests.driver import begin, recipe_for, rejects, rows, run, write_jsonl
from tests.runs.test_no_vector import fail_on
from tests.runs.test_scheduler import break_the_code

SLICE_BYTES = 2_000
COLUMNS = ["chunk_id", "file_key", "doc_id", "chunk_index", "text", "n_tokens", "char_start"]


@pytest.fixture(autouse=True)
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "SMALLEST_SLICE_BYTES", 1)
    monkeypatch.setattr(jsonl, "READ_BYTES", 777)


def run_sliced(recipe: Recipe, execution: InProcess | None = None) -> RunReport:
    """A run whose units are sliced, through the code that the flow uses."""
    job, planned = begin(recipe, Resources(unit_bytes=SLICE_BYTES, units_per_commit=4))
    tally = RunTally()
    run_units(job, planned, tally, execution or InProcess(), lambda: None)
    return finish(job, planned, tally, 0.0)


def wild_lines(seed: int) -> list[bytes]:
    """JSON lines with blank and broken ones, long ones, ids that come again near and far."""
    random_one = random.Random(seed)
    lines: list[bytes] = []
    for number in range(200):
        kind = random_one.random()
        if kind < 0.05:
            lines.append(b"")
        elif kind < 0.1:
            lines.append(b"{broken")
        elif kind < 0.15:
            lines.append(json.dumps({"id": f"e{number}", "text": " "}).encode())
        else:
            name = f"d{random_one.randrange(150)}" if kind < 0.6 else f"u{number}"
            text = "word " * random_one.randrange(1, 80) + str(number)
            lines.append(json.dumps({"id": name, "text": text}).encode())
    return lines


def outcome(recipe: Recipe) -> Any:
    """Everything a run leaves, but for the vectors and what only that run knows."""
    left_out = [{name: one[name] for name in ("doc_id", "position", "reason", "detail")}
                for one in rejects(recipe)]  # fmt: skip
    names = ["file_key", "documents", "rejected", "chunks", "dropped", "failed", "tokens"]
    lines = ledger.ledger_rows(ledger.open_ledger(table_of(recipe)), names).to_pylist()
    return rows(recipe, *COLUMNS), left_out, lines


@pytest.mark.slow
@pytest.mark.parametrize("end", [b"\n", b""])
@pytest.mark.parametrize("id_field", ["id", None])
@pytest.mark.parametrize("seed", range(3))
def test_run_sliced_json_lines_give_what_the_whole_file_gives(
    tmp_path: Path, seed: int, id_field: str | None, end: bytes
) -> None:
    (tmp_path / "src").mkdir()
    lines = wild_lines(seed)
    (tmp_path / "src" / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + b"\n".join(lines) + end)
    source = {"id": id_field}
    whole = recipe_for(tmp_path, source=source)
    cut = recipe_for(tmp_path, source=source, lake={"table": "cut"})
    planned = plan(cut)
    made = list(work_units(planned, SLICE_BYTES, cut.source))
    assert len(made) > 5
    expected, got = run(whole), run_sliced(cut)
    assert (got.outcome, got.chunks) == (expected.outcome, expected.chunks)
    assert got.rejects == expected.rejects
    assert outcome(cut) == outcome(whole)
    assert list((tmp_path / "lake" / "_embedlake" / "cut" / "staged").iterdir()) == []


def test_run_sliced_parquet_gives_what_the_whole_file_gives(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    names = [f"d{n % 180}" for n in range(200)]
    texts = [f"text {n} " + "word " * (n % 50) for n in range(200)]
    pq.write_table(
        pa.table({"id": names, "text": texts}), tmp_path / "src" / "a.parquet",
        row_group_size=10, compression="none", use_dictionary=False,
    )  # fmt: skip
    whole, cut = recipe_for(tmp_path), recipe_for(tmp_path, lake={"table": "cut"})
    assert len(list(work_units(plan(cut), SLICE_BYTES, cut.source))) > 5
    run(whole)
    assert run_sliced(cut).verification.passed
    assert outcome(cut) == outcome(whole)


def big_file(folder: Path, name: str = "a.jsonl", n_records: int = 300) -> Path:
    path = folder / "src" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(
        json.dumps({"id": f"d{n:03}", "text": f"text number {n}"}) + "\n" for n in range(n_records)
    ))  # fmt: skip
    return path


def test_run_readers_never_see_half_of_a_sliced_file(tmp_path: Path) -> None:
    big_file(tmp_path)
    recipe = recipe_for(tmp_path)
    run_sliced(recipe)
    dataset = table_of(recipe).dataset()
    seen = {dataset.checkout_version(one["version"]).count_rows() for one in dataset.versions()}
    assert seen == {0, 300}


def test_run_failed_slice_keeps_its_file_out_and_takes_no_other_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class OneSliceFails(InProcess):
        def result(self, submitted: Begun) -> EmbeddedUnit | BaseException:
            if submitted.unit.slice is not None and submitted.unit.slice.number == 2:
                return Transient("no answer")
            return super().result(submitted)

    big_file(tmp_path, "big.jsonl")
    big_file(tmp_path, "small.jsonl", n_records=3)
    recipe = recipe_for(tmp_path)
    report = run_sliced(recipe, OneSliceFails())
    assert report.outcome == "failed" and report.rows == 3
    assert report.failures[0].startswith("big.jsonl [3/")
    encoded: Counter[str] = fail_on([], monkeypatch)
    again = run_sliced(recipe)
    assert (again.outcome, again.rows) == ("done", 303)
    assert sum(n for text, n in encoded.items() if text.startswith("text number")) < 60


def test_run_slice_that_fails_by_itself_is_all_that_the_next_run_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    big_file(tmp_path)
    recipe = recipe_for(tmp_path)
    with monkeypatch.context() as patch:
        break_the_code(patch, "text number 150")
        report = run_sliced(recipe)
    assert (report.rejects, report.rows, report.outcome) == ({"failed": 1}, 0, "failed")
    encoded: Counter[str] = fail_on([], monkeypatch)
    again = run_sliced(recipe)
    assert (again.outcome, again.rows) == ("done", 300)
    assert sum(n for text, n in encoded.items() if text.startswith("text number")) < 60
    assert list((tmp_path / "lake" / "_embedlake" / "docs" / "staged").iterdir()) == []


def test_run_sliced_parquet_written_over_meanwhile_has_changed_and_is_not_damaged(
    tmp_path: Path,
) -> None:
    path = tmp_path / "src" / "a.parquet"
    path.parent.mkdir()
    table = pa.table({"id": [f"d{n}" for n in range(200)], "text": ["some words"] * 200})
    pq.write_table(table, path, row_group_size=10, compression="none", use_dictionary=False)

    class CutWhileRead(InProcess):
        def submit(self, units: Sequence[WorkUnit]) -> list[Begun]:
            path.write_bytes(path.read_bytes()[:500])
            return super().submit(units)

    assert run_sliced(recipe_for(tmp_path), CutWhileRead()).rejects == {"changed": 1}


def test_run_sliced_file_that_changes_meanwhile_is_not_half_stored(tmp_path: Path) -> None:
    path = big_file(tmp_path)

    class ChangedWhileRead(InProcess):
        def submit(self, units: Sequence[WorkUnit]) -> list[Begun]:
            path.write_text(path.read_text().replace("number 1", "number I"))
            return super().submit(units)

    recipe = recipe_for(tmp_path)
    report = run_sliced(recipe, ChangedWhileRead())
    assert (report.rejects, report.rows) == ({"changed": 1}, 0)
    assert run_sliced(recipe).rows == 300


@pytest.mark.slow
def test_run_changed_and_moved_sliced_files_keep_vectors(tmp_path: Path) -> None:
    path = big_file(tmp_path)
    recipe = recipe_for(tmp_path)
    run_sliced(recipe)
    path.write_text(path.read_text().replace('text number 7"', 'another text"'))
    report = run_sliced(recipe)
    assert (report.changed, report.embedded, report.reused) == (1, 1, 299)
    path.rename(tmp_path / "src" / "b.jsonl")
    report = run_sliced(recipe)
    assert (report.moved, report.embedded, report.reused, report.rows) == (1, 0, 300, 300)
    path.with_name("b.jsonl").rename(path)
    big_file(tmp_path, "b.jsonl", n_records=200)
    report = run_sliced(recipe)
    assert (report.added, report.changed, report.embedded) == (1, 1, 1), "texts of the old b stay"


@pytest.mark.parametrize("n_records", [3, 300])
def test_run_cut_off_between_rows_and_ledger_is_recorded_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_records: int
) -> None:
    path = big_file(tmp_path, n_records=n_records)
    recipe = recipe_for(tmp_path)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ledger, "record_entries", killed)
        with pytest.raises(KeyboardInterrupt):
            run_sliced(recipe)
    assert len(rows(recipe)) == n_records and file_lines(recipe) == []
    (planned,) = plan(recipe).files
    assert planned.why == "its line in the ledger is missing"
    encoded: Counter[str] = fail_on([], monkeypatch)
    fragments = [one.fragment_id for one in table_of(recipe).dataset().get_fragments()]
    assert run_sliced(recipe).outcome == "done"
    (line,) = file_lines(recipe)
    assert (line.source_uri, line.rows, line.embedded) == (str(path), n_records, n_records)
    assert [one.fragment_id for one in table_of(recipe).dataset().get_fragments()] == fragments
    assert encoded == Counter() and plan(recipe).is_empty


def test_run_error_policy_rejects_a_huge_file_for_a_chunk_of_any_slice(tmp_path: Path) -> None:
    lines = {f"d{n}": f"few words {n}" for n in range(300)} | {"long": "word " * 40}
    write_jsonl(tmp_path, "huge.jsonl", lines)
    write_jsonl(tmp_path, "small.jsonl", {"good": "a good document"})
    recipe = recipe_for(
        tmp_path, chunk={"strategy": "none"}, model={"max_tokens": 16, "over_length": "error"}
    )
    report = run_sliced(recipe)
    assert report.outcome == "rejected"
    assert [row["doc_id"] for row in rows(recipe, "doc_id")] == ["good"]
    (reject,) = rejects(recipe)
    assert (reject["reason"], reject["position"]) == ("length_refused", None)
    assert "record 300, id 'long', chunk 0" in reject["detail"]


@pytest.mark.parametrize("format_name", ["jsonl", "parquet", "arrow"])
def test_run_error_policy_names_a_records_place_in_the_file_whatever_slice_it_is_in(
    tmp_path: Path, format_name: str
) -> None:
    texts = [f"few words {n}" for n in range(200)] + ["word " * 40]
    records = pa.table({"text": texts, "title": ["A title"] * 201})
    (tmp_path / "src").mkdir()
    path = tmp_path / "src" / f"huge.{format_name}"
    if format_name == "jsonl":
        lines = [json.dumps(record) + "\n" for record in records.to_pylist()]
        path.write_text("\n".join(lines))  # a blank line between two records
    elif format_name == "parquet":
        pq.write_table(records, path, row_group_size=10, compression="none", use_dictionary=False)
    else:
        with pa.ipc.new_file(path, records.schema) as writer:
            writer.write_table(records, max_chunksize=10)
    recipe = recipe_for(
        tmp_path,
        source={"id": None, "title": "title"},
        chunk={"strategy": "none"},
        model={"max_tokens": 16, "over_length": "error"},
    )
    assert len(list(work_units(plan(recipe), SLICE_BYTES, recipe.source))) > 3
    run_sliced(recipe)
    (reject,) = rejects(recipe)
    position = 400 if format_name == "jsonl" else 200
    assert f"record {position}, id '{position}', chunk 0: 42 tokens" in reject["detail"]


@pytest.mark.parametrize("n_long", [1, 2])
def test_run_error_policy_passes_over_records_whose_id_an_earlier_slice_has(
    tmp_path: Path, n_long: int
) -> None:
    records = [{"id": f"d{n}", "text": f"few words {n}"} for n in range(300)]
    again = [{"id": f"d{n}", "text": "word " * 40} for n in range(n_long)]
    write_jsonl(tmp_path, "huge.jsonl", [*records, *again, {"id": "last", "text": "a last one"}])
    changes: dict[str, Any] = {
        "chunk": {"strategy": "none"}, "model": {"max_tokens": 16, "over_length": "error"},
    }  # fmt: skip
    whole = recipe_for(tmp_path, **changes)
    cut = recipe_for(tmp_path, **changes, lake={"table": "cut"})
    expected, got = run(whole), run_sliced(cut)
    assert expected.rejects == {"duplicate_id": n_long}
    assert (got.outcome, got.rejects) == (expected.outcome, expected.rejects)
    assert outcome(cut) == outcome(whole)


def test_run_error_policy_rejects_a_file_whose_slice_is_damaged_behind_the_long_record(
    tmp_path: Path,
) -> None:
    texts = ["word " * 40, *(f"few words {n}" for n in range(2_000))]
    table = pa.table({"id": [f"d{n}" for n in range(2_001)], "text": texts})
    path = tmp_path / "src" / "huge.parquet"
    path.parent.mkdir()
    pq.write_table(table, path, row_group_size=500, compression="gzip")
    damaged = pq.read_metadata(path).row_group(2).column(1)
    content = bytearray(path.read_bytes())
    first = damaged.dictionary_page_offset or damaged.data_page_offset
    content[first : first + 100] = bytes(100)
    path.write_bytes(content)
    write_jsonl(tmp_path, "small.jsonl", {"good": "a good document"})
    recipe = recipe_for(
        tmp_path, chunk={"strategy": "none"}, model={"max_tokens": 16, "over_length": "error"}
    )
    job, planned = begin(recipe, Resources(unit_bytes=path.stat().st_size // 2))
    units = list(work_units(planned, job.resources.unit_bytes, recipe.source))
    assert [unit.slice.count for unit in units if unit.slice] == [2, 2]
    tally = RunTally()
    run_units(job, planned, tally, InProcess(), lambda: None)
    report = finish(job, planned, tally, 0.0)
    assert (report.outcome, report.rows, report.failures) == ("rejected", 1, ())
    assert report.rejects == {"length_refused": 1}
