"""Runs over files of every format: what is good is in the table, what is bad in the rejects."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.ipc as ipc
import pyarrow.parquet as pq

from embedding_core.recipe import Recipe
from embedding_core.runs.embed.planning import plan
from tests.compressed import COMPRESSORS
from tests.driver import recipe_for, rejects, rows, run

RECORDS = [{"id": "007", "text": "first words"}, {"id": "8", "text": "second words"}]


def mixed(folder: Path) -> Path:
    """A folder with a file of each kind."""
    source = folder / "src"
    source.mkdir()
    table = pa.Table.from_pylist(RECORDS)
    (source / "lines.jsonl").write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    (source / "list.json").write_text(json.dumps(RECORDS))
    pq.write_table(table, source / "rows.parquet")
    feather.write_feather(table, source / "rows.feather")
    with ipc.new_stream(source / "rows.arrow", table.schema) as writer:
        writer.write_table(table)
    cells = b"id,text\n007,first words\n8,second words\n"
    (source / "rows.csv").write_bytes(cells)
    (source / "rows.tsv").write_bytes(cells.replace(b",", b"\t"))
    for end, compress in COMPRESSORS.items():
        (source / f"rows.csv{end}").write_bytes(compress(cells))
    return source


def test_run_over_a_folder_of_every_table_format_has_each_record(tmp_path: Path) -> None:
    n_files = len(list(mixed(tmp_path).iterdir()))
    recipe = recipe_for(tmp_path)
    report = run(recipe)
    assert (report.outcome, report.documents) == ("done", 2 * n_files)
    assert {(row["doc_id"], row["text"]) for row in rows(recipe, "doc_id", "text")} == {
        (record["id"], record["text"]) for record in RECORDS
    }


def test_run_bad_rows_and_files_stand_in_rejects_and_end_with_three(tmp_path: Path) -> None:
    source = mixed(tmp_path)
    (source / "bad.csv").write_bytes(b'id,text\n1,good\n2\n3,caf\xe9\n4,"x"y\n5,good\n')
    (source / "cut.jsonl.gz").write_bytes(gzip.compress(b'{"id": "9", "text": "lost"}\n' * 99)[:-9])
    (source / "cut.arrow").write_bytes((source / "rows.arrow").read_bytes()[:-8])
    (source / "semicolons.csv").write_bytes(b"id;text\n1;x\n")
    recipe = recipe_for(tmp_path)
    report = run(recipe)
    assert report.outcome == "rejected"
    assert sorted((Path(r["source_uri"]).name, r["position"], r["reason"]) for r in rejects(recipe)
        if r["position"] is not None) == [
        ("bad.csv", 1, "ragged_row"), ("bad.csv", 2, "invalid_utf8"),
        ("bad.csv", 3, "malformed_row"),
    ]  # fmt: skip
    assert sorted(
        (Path(r["source_uri"]).name, r["reason"]) for r in rejects(recipe) if r["position"] is None
    ) == [
        ("cut.arrow", "corrupt_arrow"),
        ("cut.jsonl.gz", "truncated_compressed"),
        ("semicolons.csv", "missing_column"),
    ]
    texts = [row["text"] for row in rows(recipe, "source_uri", "text")]
    assert texts.count("good") == 2 and "lost" not in texts


def test_run_over_a_folder_of_a_retrieval_test_says_how_to_leave_its_judgements_out(
    tmp_path: Path,
) -> None:
    source = tmp_path / "src"
    (source / "qrels").mkdir(parents=True)
    (source / "corpus.jsonl").write_text('{"_id": "d", "title": "A", "text": "document"}\n')
    (source / "queries.jsonl").write_text('{"_id": "q", "text": "query"}\n')
    (source / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\td\t1\n")
    recipe = recipe_for(tmp_path, source={"id": "_id"})
    assert run(recipe).outcome == "rejected"
    (reject,) = rejects(recipe)
    assert reject["reason"] == "missing_column" and reject["position"] is None
    assert "'query-id', 'corpus-id', 'score'; correct" in reject["detail"]
    assert "leave the file out by source.exclude" in reject["detail"]
    mapping = {"id": "_id", "exclude": ["qrels", "queries.jsonl"]}
    assert run(recipe_for(tmp_path, source=mapping, max_removed_share=1)).outcome == "done"
    assert [row["doc_id"] for row in rows(recipe, "doc_id")] == ["d"]


def test_run_options_of_a_format_are_rules_of_the_rows_and_defaults_are_not(tmp_path: Path) -> None:
    source = tmp_path / "src"
    source.mkdir()
    (source / "a.csv").write_bytes(b"id;text\n1;x\n")

    def recipe(**formats: object) -> Recipe:
        return recipe_for(tmp_path, source={"formats": formats})

    assert run(recipe()).outcome == "failed"
    assert run(recipe(csv={"delimiter": ";"})).outcome == "done"
    assert plan(recipe(csv={"delimiter": ";", "nulls": []}, json={})).files == ()
    (file,) = plan(recipe(csv={"delimiter": ";", "nulls": ["NA"]})).files
    assert file.why == "options of a format changed"
    (file,) = plan(recipe_for(tmp_path, source={"format": "text"})).files
    assert "format of the files changed" in file.why


def test_plan_says_what_is_wrong_with_a_file_before_the_run(tmp_path: Path) -> None:
    source = tmp_path / "src"
    source.mkdir()
    (source / "a.csv").write_bytes(b"id;text\n1;x\n")
    (problem,) = plan(recipe_for(tmp_path)).sample_problems
    assert "set source.formats.csv.delimiter to ';'" in problem
