"""Bad input: a clear reason in the rejects table or a clear error, other files unaffected."""

from __future__ import annotations

import errno
import gzip
import os
import shutil
from pathlib import Path

import pytest

from embedding_core.errors import LakeError, ModelError, SetupError, Transient, UsageError
from embedding_core.lake import ledger, staging
from embedding_core.lake.table import table_of
from embedding_core.recipe import Resources
from embedding_core.records import Reject
from embedding_core.reports.plan import PlanView
from embedding_core.reports.status import StatusView
from embedding_core.runs.embed import units
from embedding_core.runs.embed.chunk_stage import chunk_unit
from embedding_core.runs.embed.commit_stage import commit_units
from embedding_core.runs.embed.embed_stage import embed_unit
from embedding_core.runs.embed.planning import plan
from embedding_core.runs.embed.units import failed_alone, work_units
from embedding_core.runs.job import locked_for
from embedding_core.runs.table_status import reject_lines, status
from tests.checkpoints import as_sentence_transformer
from tests.driver import begin, recipe_for, rejects, rows, run, texts, write_jsonl

GOOD = {"good": "a perfectly good document"}


def run_beside_a_good_file(folder: Path, bad_line: bytes) -> list[dict[str, object]]:
    """Run over a good file and one whose second line is bad; returns the rejects."""
    write_jsonl(folder, "good.jsonl", GOOD)
    lines = [b'{"id": "1", "text": "first"}', bad_line, b'{"id": "3", "text": "third"}']
    (folder / "src" / "bad.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    recipe = recipe_for(folder)
    report = run(recipe)
    assert report.outcome == "rejected"
    assert report.verification.passed
    assert texts(recipe) == ["first", "third", GOOD["good"]]
    return rejects(recipe)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"id": "2", "text": ', "malformed_json"),
        (b'{"id": "2", "text": NaN}', "malformed_json"),
        (b'["id", "text"]', "not_an_object"),
        (b'{"id": "2"}', "missing_field"),
        (b'{"id": "2", "text": null}', "missing_field"),
        (b'{"id": "2", "text": ["a"]}', "wrong_type"),
        (b'{"id": "2", "text": "\xff\xfe"}', "invalid_utf8"),
        (b'{"id": "2", "text": "\\ud800"}', "lone_surrogate"),
        (b'{"id": "2", "text": "   "}', "empty_text"),
        (b'{"id": "1", "text": "again"}', "duplicate_id"),
    ],
)
def test_run_bad_record_is_listed_with_its_place(tmp_path: Path, line: bytes, reason: str) -> None:
    (reject,) = run_beside_a_good_file(tmp_path, line)
    assert (reject["reason"], reject["position"]) == (reason, 1)
    assert str(reject["source_uri"]).endswith("bad.jsonl")
    assert reject["detail"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "reason"),
    [("8" * 400, "wrong_type"), ("1e999", "wrong_type"), ("9" * 5_000, "malformed_json")],
)
@pytest.mark.parametrize(
    "role",
    [
        {"id": "n"},
        {"text": "{n}: {text}"},
        *({"metadata": {"n": kind}} for kind in ("string", "int", "float", "bool", "timestamp")),
    ],
    ids=str,
)
def test_run_hostile_number_costs_one_record_whole_and_in_slices(
    tmp_path: Path, role: dict[str, object], number: str, reason: str
) -> None:
    fits = {"string": '"a"', "bool": "true", "timestamp": '"2024-01-01"'}
    kind = next(iter(role.get("metadata", {"n": ""}).values()))  # type: ignore[attr-defined]
    folder = tmp_path / "src"
    folder.mkdir()
    for name, n_records in (("small", 20), ("large", 2_500)):
        lines = [
            f'{{"id": "{n}", "n": {number if n == 11 else fits.get(kind, n)}, '
            f'"text": "{name} {n} {"word " * 200}"}}\n'
            for n in range(n_records)
        ]
        (folder / f"{name}.jsonl").write_text("".join(lines))
    recipe = recipe_for(tmp_path, source=role, chunk={"strategy": "none"})
    run(recipe, Resources(unit_bytes=1024 * 1024))
    assert [(one["position"], one["reason"]) for one in rejects(recipe)] == [(11, reason)] * 2
    assert len(rows(recipe)) == 19 + 2_499


def test_run_without_rejects_has_an_empty_list_of_them(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", GOOD)
    recipe = recipe_for(tmp_path)
    run(recipe)
    listed = ledger.rejects_table(table_of(recipe))
    assert listed.exists() and listed.dataset().count_rows() == 0


def test_unit_that_fails_without_a_message_has_words_all_the_same(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", GOOD)
    (unit,) = work_units(plan(recipe_for(tmp_path)), 1)
    (reject,) = failed_alone(unit, MemoryError()).file_rejects
    assert reject.detail.startswith("MemoryError: out of memory")


def test_run_rejects_within_tolerance_end_with_zero(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"x": "words", "y": ""})
    assert run(recipe_for(tmp_path, max_rejected_share=0.5)).outcome == "done"


def test_run_repaired_file_has_no_rejects_left(tmp_path: Path) -> None:
    run_beside_a_good_file(tmp_path, b"{")
    write_jsonl(tmp_path, "bad.jsonl", {"1": "first"})
    recipe = recipe_for(tmp_path)
    assert run(recipe).outcome == "done"
    assert rejects(recipe) == []


def test_run_truncated_compressed_rejects_the_file_and_none_of_its_rows_are_seen(
    tmp_path: Path,
) -> None:
    write_jsonl(tmp_path, "good.jsonl", GOOD)
    lines = b"".join(b'{"id": "%d", "text": "text %d"}\n' % (n, n) for n in range(5_000))
    whole = gzip.compress(lines)
    (tmp_path / "src" / "cut.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    recipe = recipe_for(tmp_path)
    report = run(recipe)
    assert report.outcome == "rejected"
    assert texts(recipe) == [GOOD["good"]]
    assert [one["reason"] for one in rejects(recipe)] == ["truncated_compressed"]


def test_run_file_that_became_unusable_keeps_its_last_good_rows(tmp_path: Path) -> None:
    path = tmp_path / "src" / "a.jsonl.gz"
    write_jsonl(tmp_path, "good.jsonl", GOOD)
    path.write_bytes(gzip.compress(b'{"id": "1", "text": "kept"}\n'))
    recipe = recipe_for(tmp_path)
    run(recipe)
    path.write_bytes(gzip.compress(b'{"id": "1", "text": "new"}\n')[:-6])
    assert run(recipe).outcome == "failed", "nothing of what it read came in"
    assert texts(recipe) == ["kept", GOOD["good"]]
    assert plan(recipe).is_empty, "a bad file is read again though it did not change"
    path.write_bytes(gzip.compress(b'{"id": "1", "text": "repaired"}\n'))
    assert run(recipe).outcome == "done"
    assert texts(recipe) == ["repaired", GOOD["good"]]


@pytest.mark.parametrize("bad", ["records", "file", "unreadable", "too long"])
def test_run_in_which_everything_is_rejected_fails(tmp_path: Path, bad: str) -> None:
    changes: dict[str, object] = {}
    if bad == "records":
        write_jsonl(tmp_path, "a.jsonl", [{"id": str(n), "body": "text"} for n in range(40)])
    elif bad == "too long":
        write_jsonl(tmp_path, "a.jsonl", {"1": "word " * 50})
        changes = {"chunk": {"strategy": "none"}, "model": {"max_tokens": 8}}
    else:
        path = write_jsonl(tmp_path, "a.jsonl", {})
        path.write_bytes(b"PAR1")
        path.rename(path.with_suffix(".parquet"))
        if bad == "unreadable":
            path.with_suffix(".parquet").unlink()
            path.symlink_to(tmp_path / "nowhere")
    recipe = recipe_for(tmp_path, max_rejected_share=1.0, **changes)
    report = run(recipe)
    assert report.outcome == "failed"
    (failure,) = report.failures
    assert "nothing of what was read came into the table" in failure and "rejects" in failure
    write_jsonl(tmp_path, "good.jsonl", GOOD)
    assert run(recipe).outcome != "failed"


def test_plan_with_nothing_to_do_counts_files_that_hold_only_rejects(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", [{"id": "1", "body": "text"}])
    write_jsonl(tmp_path, "good.jsonl", GOOD)
    write_jsonl(tmp_path, "empty.jsonl", {})
    recipe = recipe_for(tmp_path)
    run(recipe)
    planned = plan(recipe)
    assert planned.is_empty and planned.only_rejects == 1
    (line,) = PlanView(planned).lines()
    assert "all 3 files" in line and "1 of them gave nothing but rejects" in line


def test_run_unreadable_file_is_listed_others_done_and_tried_again(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "good.jsonl", GOOD)
    link = tmp_path / "src" / "gone.jsonl"
    link.symlink_to(tmp_path / "nowhere")
    recipe = recipe_for(tmp_path)
    report = run(recipe)
    assert (report.unreadable, report.outcome) == (1, "rejected")
    assert texts(recipe) == [GOOD["good"]]
    assert [one["reason"] for one in rejects(recipe)] == ["unreadable"]
    link.unlink()
    write_jsonl(tmp_path, "gone.jsonl", {"1": "back again"})
    assert run(recipe).outcome == "done"
    assert rejects(recipe) == []


def test_run_file_that_cannot_be_read_any_more_keeps_its_rows(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "good.jsonl", GOOD)
    path = write_jsonl(tmp_path, "a.jsonl", {"1": "kept"})
    recipe = recipe_for(tmp_path)
    run(recipe)
    path.unlink()
    path.symlink_to(tmp_path / "nowhere")
    assert run(recipe).removed == 0
    assert texts(recipe) == ["kept", GOOD["good"]]


def test_run_file_that_was_empty_before_it_had_rows_gives_none_again(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "good.jsonl", GOOD)
    recipe = recipe_for(tmp_path)
    for documents, found in ([{}, 1], [{"x": "words"}, 2], [{}, 1]):
        write_jsonl(tmp_path, "a.jsonl", documents)  # type: ignore[arg-type]
        assert run(recipe).rows == found
    path = tmp_path / "src" / "a.jsonl"
    for content, found in ((b"{", 1), (b'{"id": "1", "text": "kept"}\n', 2), (b"PAR1", 2)):
        path.write_bytes(content)
        assert run(recipe).rows == found
    assert plan(recipe).is_empty
    path.write_bytes(b"{")
    assert run(recipe).rows == 1, "a version without rows is taken for the rejected one"


def test_run_unchanged_file_that_can_be_read_again_lists_its_own_rejects(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path, "a.jsonl", {"1": "kept", "2": " "})
    write_jsonl(tmp_path, "good.jsonl", GOOD)
    recipe = recipe_for(tmp_path, max_rejected_share=0.5)
    run(recipe)
    hidden = path.rename(tmp_path / "hidden")
    path.symlink_to(tmp_path / "nowhere")
    assert run(recipe).outcome == "rejected"
    assert [one["reason"] for one in rejects(recipe)] == ["unreadable"]
    hidden.replace(path)
    (planned,) = plan(recipe).files
    assert planned.why == "retried: unreadable"
    report = run(recipe)
    assert (report.embedded, report.reused, report.outcome) == (0, 1, "done")
    assert [one["reason"] for one in rejects(recipe)] == ["empty_text"]
    assert plan(recipe).is_empty


@pytest.mark.parametrize(
    ("name", "nasty"),
    [
        ("it's ; --.jsonl", "it's; DROP TABLE x --\n../../etc"),
        ("x' OR 1=1 --.jsonl", "x' OR 1=1 --"),
        ("new\nline %2f.jsonl", "i" * 1024),
        ("n" * 249 + ".jsonl", 'a "quoted" \\ id'),
        ("cafe\u0301.jsonl", "caf\u00e9"),
    ],
    ids=["sql", "or", "long id", "long name", "nfd"],
)
def test_run_ids_and_names_with_quotes_and_sql_round_trip_and_can_be_removed(
    tmp_path: Path, name: str, nasty: str
) -> None:
    path = write_jsonl(tmp_path, name, [{"id": nasty, "text": "nasty"}])
    write_jsonl(tmp_path, "good.jsonl", GOOD)
    recipe = recipe_for(tmp_path)
    run(recipe)
    expected = {"doc_id": nasty, "source_uri": str(path)}
    assert expected in rows(recipe, "doc_id", "source_uri")
    path.unlink()
    assert run(recipe, allow_removals=True).rows == 1
    assert expected not in rows(recipe, "doc_id", "source_uri")


def test_run_ids_that_several_files_have_are_documents_of_each(tmp_path: Path) -> None:
    """In one file the first record of an id wins; of files, each stands for itself."""
    twice = [{"id": "a", "text": "one"}, {"id": "a", "text": "one"}, {"id": "a", "text": "two"}]
    write_jsonl(tmp_path, "1.jsonl", twice)
    path = write_jsonl(tmp_path, "2.jsonl", {"a": "one", "b": "two"})
    recipe = recipe_for(tmp_path, max_rejected_share=1)
    report = run(recipe)
    assert (report.rows, report.rejects) == (3, {"duplicate_id": 2})
    assert [reject["position"] for reject in rejects(recipe)] == [1, 2]
    assert [(row["doc_id"], row["text"]) for row in rows(recipe)] == [
        ("a", "one"), ("a", "one"), ("b", "two"),
    ]  # fmt: skip
    assert len({row["chunk_id"] for row in rows(recipe, "chunk_id")}) == 3
    path.unlink()
    assert run(recipe, allow_removals=True).rows == 1, "the other file's document stays"


def test_run_over_length_documents_follow_the_policy(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"short": "few words", "long": "word " * 30})
    lengths = {"max_tokens": 16}
    whole = {"strategy": "none"}
    dropped = recipe_for(tmp_path, chunk=whole, model={**lengths, "over_length": "drop"})
    report = run(dropped)
    assert (report.dropped, report.outcome) == (1, "rejected")
    assert [one["reason"] for one in rejects(dropped)] == ["over_length"]
    cut = recipe_for(
        tmp_path, chunk=whole, model={**lengths, "over_length": "truncate"},
        lake={"table": "cut"},
    )  # fmt: skip
    assert run(cut).embedded == 2
    assert [one["reason"] for one in rejects(cut)] == ["truncated"]
    split = recipe_for(
        tmp_path, chunk=whole, model={**lengths, "over_length": "split"},
        lake={"table": "split"},
    )  # fmt: skip
    assert run(split).embedded == 3
    assert rejects(split) == []


@pytest.mark.parametrize("policy", ["drop", "truncate"])
@pytest.mark.parametrize("with_texts", [False, True])
def test_rejects_of_chunks_say_where_they_are_how_long_and_if_asked_what(
    tmp_path: Path, policy: str, with_texts: bool
) -> None:
    long = "word " * 30 + "end"
    write_jsonl(tmp_path, "a.jsonl", [{"id": "bad"}, {"id": "s", "text": "short"},
                                      {"id": "l", "text": long}])  # fmt: skip
    recipe = recipe_for(
        tmp_path, chunk={"strategy": "none"}, max_rejected_share=1,
        model={"max_tokens": 16, "over_length": policy}, keep_rejected_texts=with_texts,
    )  # fmt: skip
    run(recipe)
    record, chunk = rejects(recipe)
    assert record["reason"] == "missing_field"
    assert [record[name] for name in ("chunk_index", "n_tokens", "text")] == [None] * 3
    assert [chunk[name] for name in ("doc_id", "position", "chunk_index")] == ["l", 2, 0]
    assert chunk["n_tokens"] > 16
    assert chunk["text"] == (long if with_texts else None)
    lines = StatusView(status(recipe), rejects=reject_lines(recipe)).lines()
    (line,) = [line for line in lines if "id 'l'" in line]
    assert f"position 2 id 'l' chunk 0 ({chunk['n_tokens']} tokens)" in line
    assert ("'word word" in line) == with_texts


def test_run_error_policy_rejects_the_file_before_any_of_it_is_embedded(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "good.jsonl", {"a": "few words"})
    write_jsonl(tmp_path, "bad.jsonl", {"a": "few words", "b": "word " * 30, "c": "word " * 40})
    recipe = recipe_for(
        tmp_path, chunk={"strategy": "none"}, max_rejected_share=1,
        model={"max_tokens": 16, "over_length": "error"},
    )  # fmt: skip
    report = run(recipe)
    assert (report.embedded, report.outcome) == (1, "rejected")
    (reject,) = rejects(recipe)
    assert (reject["reason"], reject["doc_id"], reject["position"]) == (
        "length_refused",
        None,
        None,
    )
    assert "record 1, id 'b', chunk 0: " in reject["detail"]
    assert "the model takes 16" in reject["detail"]
    write_jsonl(tmp_path, "bad.jsonl", {"a": "few words", "b": "shorter"})
    assert run(recipe).outcome == "done"


def test_run_error_policy_keeps_the_last_good_rows_of_a_file(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"a": "few words"})
    recipe = recipe_for(
        tmp_path, chunk={"strategy": "none"}, model={"max_tokens": 16, "over_length": "error"},
    )  # fmt: skip
    run(recipe)
    write_jsonl(tmp_path, "a.jsonl", {"a": "other words", "b": "word " * 30})
    write_jsonl(tmp_path, "b.jsonl", GOOD)
    assert run(recipe).outcome == "rejected"
    assert texts(recipe) == ["few words", GOOD["good"]]


def test_rejected_texts_are_written_before_they_fill_the_memory(tmp_path: Path) -> None:
    recipe = recipe_for(tmp_path)
    path = str(tmp_path / "rejects.arrow")
    with staging.reject_writer(table_of(recipe), path) as writer:
        for position in range(9):
            writer.add(Reject("u", "d", position, "over_length", "x", 0, 9, "x" * 1_000_000))
    sizes = [batch.num_rows for batch in staging.read_staged(table_of(recipe), path)]
    assert sizes == [4, 4, 1]


def test_plan_missing_source_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="src"):
        plan(recipe_for(tmp_path))


def test_plan_empty_folder_names_the_globs(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    with pytest.raises(SetupError, match=r"\*\.jsonl"):
        plan(recipe_for(tmp_path))


def test_plan_unknown_model_says_what_to_do(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", GOOD)
    with pytest.raises(ModelError, match=r"no_such_package.*pip install"):
        plan(recipe_for(tmp_path, model={"name": "package:no_such_package", "dim": None}))


def test_plan_checkpoint_without_safetensors_is_refused(tmp_path: Path, tiny_qwen3: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", GOOD)
    shutil.copytree(tiny_qwen3, tmp_path / "pickled")
    (tmp_path / "pickled" / "model.safetensors").rename(tmp_path / "pickled" / "pytorch_model.bin")
    model = {"name": str(tmp_path / "pickled"), "dim": None}
    with pytest.raises(ModelError, match="safetensors"):
        plan(recipe_for(tmp_path, model=model))


def test_plan_chunks_longer_than_the_model_takes_name_both_numbers(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", GOOD)
    recipe = recipe_for(tmp_path, chunk={"max_tokens": 300}, model={"max_tokens": 200})
    with pytest.raises(UsageError, match=r"300.*200"):
        plan(recipe)


def test_plan_architecture_that_is_not_tested_is_refused_unless_allowed(
    tmp_path: Path, tiny_qwen3: Path
) -> None:
    write_jsonl(tmp_path, "a.jsonl", GOOD)
    shutil.copytree(tiny_qwen3, tmp_path / "other")
    as_sentence_transformer(tmp_path / "other", {"pooling_mode": "lasttoken"})
    config = tmp_path / "other" / "config.json"
    config.write_text(config.read_text().replace('"qwen3"', '"qwen3_unheard_of"'))
    model = {"name": str(tmp_path / "other"), "dim": None}
    with pytest.raises(ModelError, match="qwen3_unheard_of"):
        plan(recipe_for(tmp_path, model=model))
    allowed = recipe_for(tmp_path, model=model | {"allow_unverified": True})
    assert len(plan(allowed).files) == 1


def test_commit_units_lake_gone_meanwhile_fails_and_the_next_run_heals(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", GOOD)
    recipe = recipe_for(tmp_path)
    job, planned = begin(recipe)
    (unit,) = units.work_units(planned, 1)
    done = embed_unit(job, chunk_unit(job, unit))
    shutil.rmtree(tmp_path / "lake")
    with pytest.raises((Transient, LakeError), match="docs"):
        commit_units(job, [done])
    assert run(recipe).outcome == "done"
    assert texts(recipe) == [GOOD["good"]]


@pytest.mark.parametrize("table", ["docs", "docs__files", "docs__rejects"])
def test_run_files_of_the_table_that_are_gone_are_named(tmp_path: Path, table: str) -> None:
    write_jsonl(tmp_path, "a.jsonl", GOOD | {"blank": " "})
    recipe = recipe_for(tmp_path, max_rejected_share=0.5)
    run(recipe)
    shutil.rmtree(tmp_path / "lake" / f"{table}.lance" / "data")
    write_jsonl(tmp_path, "a.jsonl", {"other": "text"})
    with pytest.raises(LakeError, match=rf"{table}\.lance: .*is missing") as caught:
        run(recipe)
    assert caught.value.action == "repair"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_chunk_unit_full_or_read_only_lake_says_what_to_do_and_leaves_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    write_jsonl(tmp_path, "a.jsonl", GOOD)
    recipe = recipe_for(tmp_path)
    run(recipe)
    write_jsonl(tmp_path, "a.jsonl", {"other": "text"})
    job, planned = begin(recipe)
    (unit,) = units.work_units(planned, 1)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", refuse)
        with pytest.raises(LakeError, match="make room or make it writable"):
            chunk_unit(job, unit)
    assert texts(recipe) == [GOOD["good"]]
    assert run(recipe).outcome == "done"


def test_plan_lake_that_cannot_be_reached_names_it(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", GOOD)
    (tmp_path / "a file").touch()
    recipe = recipe_for(tmp_path, lake={"uri": str(tmp_path / "a file")})
    with (
        pytest.raises((Transient, LakeError), match="a file"),
        locked_for(recipe, "run", 0),
    ):
        pass
