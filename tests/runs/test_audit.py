"""Damage in a whole table: found, named by file and row, taken out, and made again by a run."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pytest

from embedding_core.errors import EmbedlakeError, LakeError
from embedding_core.lake import ledger
from embedding_core.lake.readers.feedback import Feedback, append_feedback, read_feedback
from embedding_core.lake.table import Table, table_of
from embedding_core.lake.upkeep.row_audit import Damage, is_another
from embedding_core.recipe import ModelSpec, Recipe, Resources
from embedding_core.reports.audit import AuditView
from embedding_core.runs.job import load
from embedding_core.runs.repair import AuditReport, repair
from embedding_core.runs.repair import audit as audit_recipe
from embedding_core.runs.space.build import build_space
from tests.driver import recipe_for, rejects, rows, run, write_jsonl

RESOURCES = Resources()
COLUMNS = ("source_uri", "doc_id", "chunk_index", "text", "vector", "n_tokens", "char_end")
FLIPS = 40


def made(folder: Path) -> Recipe:
    """Three files of 25 documents, a bad line in each, with indexes."""
    for name in "abc":
        documents = [
            {"id": f"{name}{n}", "text": f"{name} word{n} word{n * 7} word{n * 13}"}
            for n in range(25)
        ]
        write_jsonl(folder, f"{name}.jsonl", [*documents, {"id": "bad", "text": " "}])
    recipe = recipe_for(folder, max_rejected_share=1, index={"full_text": True})
    run(recipe)
    return recipe


def audit(recipe: Recipe) -> AuditReport:
    return audit_recipe(recipe, RESOURCES, deep=True)


def data_files(folder: Path, table: str = "docs") -> list[Path]:
    """The data files of a table's newest version."""
    dataset = lance.dataset(str(folder / "lake" / f"{table}.lance"))
    return [
        folder / "lake" / f"{table}.lance" / "data" / file.path
        for fragment in dataset.get_fragments()
        for file in fragment.data_files()
    ]


def overwritten(recipe: Recipe, column: str, change: Callable[[Any], Any]) -> None:
    """Another value in one row, as if its bits had flipped: the file of a document is b.jsonl."""
    table = table_of(recipe).dataset()
    found = table.to_table(filter="doc_id = 'b7'")
    value = change(found.column(column)[0].as_py())
    kind = found.schema.field(column).type
    place = found.schema.get_field_index(column)
    new = found.set_column(place, found.schema.field(column), pa.array([value], kind))
    keep = "doc_id" if column == "chunk_id" else "chunk_id"
    table.merge_insert(keep).when_matched_update_all().execute(new)


def flipped(text: str) -> str:
    return text[:5] + chr(ord(text[5]) ^ 1) + text[6:]


def is_as_it_was(now: list[dict[str, Any]], before: list[dict[str, Any]]) -> bool:
    """Whether rows read the same; a value of a vector that moved by less than 1e-5 did."""

    def plain(some: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{name: row[name] for name in row if name != "vector"} for row in some]

    def vectors(some: list[dict[str, Any]]) -> Any:
        return np.array([row["vector"] for row in some], np.float64)

    return plain(now) == plain(before) and np.allclose(vectors(now), vectors(before), 0, 1e-5)


@pytest.mark.slow
def test_audit_of_a_sound_table_finds_nothing_and_changes_nothing(tmp_path: Path) -> None:
    recipe = made(tmp_path)
    build_space(recipe, ModelSpec(name="hashing", dim=8), RESOURCES, "build")
    write_jsonl(tmp_path, "d.jsonl", {"new": "without a vector in the other space"})
    run(recipe)
    version = table_of(recipe).dataset().version
    quick, deep = audit_recipe(recipe, RESOURCES), audit(recipe)
    assert (quick.damages, quick.outcome, quick.encoded_again) == ((), "done", 0)
    assert (deep.damages, deep.outcome, deep.encoded_again) == ((), "done", 76)
    assert repair(recipe, RESOURCES, deep=True).outcome == "done"
    assert table_of(recipe).dataset().version == version
    sampled = audit_recipe(recipe, RESOURCES, deep=True, sample_rows=10)
    assert 5 <= sampled.encoded_again <= 20


@pytest.mark.slow
def test_audit_of_float16_cut_and_reused_rows_finds_nothing(tmp_path: Path) -> None:
    texts = {"long": " ".join(f"word{n}" for n in range(400)), "x": "same", "y": "same"}
    write_jsonl(tmp_path, "a.jsonl", texts)
    (tmp_path / "src" / "b.jsonl").write_bytes((tmp_path / "src" / "a.jsonl").read_bytes())
    recipe = recipe_for(tmp_path, chunk={"strategy": "none"}, model={"over_length": "truncate"})
    run(recipe)
    write_jsonl(tmp_path, "a.jsonl", texts | {"z": "🙂 naïve café"})
    run(recipe)
    assert audit(recipe).damages == ()


def another_digest(one: str) -> str:
    """A key that looks like one; a flipped bit may make a character that no digest has."""
    return ("1" if one[0] == "0" else "0") + one[1:]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("column", "change", "says"),
    [
        ("text", flipped, "text_hash is not the digest of the text"),
        ("text_hash", flipped, "text_hash is not the digest of the text"),
        ("chunk_id", flipped, "chunk_id is not the digest"),
        ("doc_id", lambda one: one + "x", "chunk_id is not the digest"),
        ("source_uri", flipped, "chunk_id is not the digest"),
        ("file_key", another_digest, "file_key is not in the ledger"),
        ("file_key", lambda one: one[1:], "file_key is no digest"),
        ("chunk_index", lambda one: one + 64, "chunk_id is not the digest"),
        ("char_start", lambda one: one + 1, "do not span the text"),
        ("char_end", lambda one: one - 2, "do not span the text"),
        ("n_tokens", lambda one: one + 1, "n_tokens add up to"),
        ("vector", lambda one: [one[0] + 1e30, *one[1:]], "vector is not finite or not of unit"),
        ("vector", lambda one: [one[0] + 2e-5, *one[1:]], "not what the model makes of the text"),
        ("vector", lambda _one: None, "1 row without a vector in vector, by the metadata 0"),
    ],
)
def test_audit_names_what_is_wrong_and_a_run_after_repair_makes_it_again(
    tmp_path: Path, column: str, change: Callable[[Any], Any], says: str
) -> None:
    recipe = made(tmp_path)
    before = rows(recipe, *COLUMNS)
    overwritten(recipe, column, change)
    found = audit(recipe)
    assert found.outcome == "failed"
    named = [damage for damage in found.damages if says in damage.what]
    assert named, [damage.what for damage in found.damages]
    if column not in ("n_tokens",):
        assert named[0].n_rows == 1 and named[0].data_files
        assert (tmp_path / "lake/docs.lance/data" / named[0].data_files[0]).exists()
    if column not in ("source_uri", "vector", "file_key"):
        assert named[0].source_uris == (str(tmp_path / "src" / "b.jsonl"),)
    repaired = repair(recipe, RESOURCES, deep=True)
    assert (repaired.repaired, repaired.outcome) == (True, "done")
    assert len(rows(recipe, "doc_id")) < len(before)
    assert run(recipe, allow_removals=True).outcome == "done"
    assert rows(recipe, *COLUMNS) == before
    assert audit(recipe).damages == ()


@pytest.mark.slow
def test_audit_finds_every_flipped_bit_that_changes_what_is_read(tmp_path: Path) -> None:
    recipe = made(tmp_path)
    truth = rows(recipe, *COLUMNS)
    n_changed = 0
    for seed in range(FLIPS):
        chance = random.Random(seed)
        file = chance.choice(data_files(tmp_path))
        content, at = file.read_bytes(), chance.randrange(file.stat().st_size)
        bit = 1 << chance.randrange(8)
        file.write_bytes(content[:at] + bytes([content[at] ^ bit]) + content[at + 1 :])
        try:
            is_changed = not is_as_it_was(rows(recipe, *COLUMNS), truth)
        except BaseException as error:  # a panic of Lance is no Exception
            assert not isinstance(error, (KeyboardInterrupt, SystemExit))
            is_changed = True
        if is_changed:
            n_changed += 1
            damages = audit(recipe).damages
            named = [(damage.what, damage.data_files) for damage in damages]
            assert any(file.name in files for _, files in named), (seed, at, bit, named)
        file.write_bytes(content)
    assert n_changed > 5
    assert audit(recipe).damages == ()


@pytest.mark.parametrize("beside", ["files", "rejects"])
def test_repair_puts_a_manifest_aside_whose_columns_are_others(tmp_path: Path, beside: str) -> None:
    recipe = made(tmp_path)
    before = rejects(recipe)
    name = f"docs__{beside}"
    table_of(recipe).lake.table(name).dataset().drop_columns(["run_id"])
    with pytest.raises(LakeError, match=rf"manifest of version .*{name}.* is damaged"):
        run(recipe)
    assert repair(recipe, RESOURCES).outcome == "done"
    assert run(recipe).outcome == "done"
    assert rejects(recipe) == before and audit(recipe).damages == ()


def newest_manifest(table: Table) -> Path:
    return Path(table.uri, "_versions", table.newest_manifest()[1])


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (b"\x12\x0asource_uri", b"\x12\x0asource_urj", "no column source_uri"),
        (b"file_key\x18\x01", b"file_key\x18\x02", "two columns have one number"),
    ],
)
def test_repair_puts_a_manifest_aside_that_parses_and_was_never_written(
    tmp_path: Path, old: bytes, new: bytes, why: str
) -> None:
    recipe = made(tmp_path)
    before = rows(recipe, *COLUMNS)
    manifest = newest_manifest(table_of(recipe))
    content = manifest.read_bytes()
    assert old in content
    manifest.write_bytes(content.replace(old, new))
    with pytest.raises(LakeError, match=rf"manifest of version .* is damaged .*{why}"):
        run(recipe)
    assert repair(recipe, RESOURCES).outcome == "done"
    assert run(recipe).outcome == "done"
    assert rows(recipe, *COLUMNS) == before and audit(recipe).damages == ()


def test_audit_names_the_files_of_a_column_that_the_manifest_says_is_in_none(
    tmp_path: Path,
) -> None:
    recipe = made(tmp_path)
    lines = table_of(recipe).lake.table("docs__files")
    manifest = newest_manifest(lines)
    names = lines.dataset().schema.names
    ids, at = bytes(range(len(names))), names.index("documents")
    content = manifest.read_bytes()
    assert b"\x12" + bytes([len(ids)]) + ids in content
    manifest.write_bytes(content.replace(ids, ids[:at] + b"\x7f" + ids[at + 1 :]))
    files = {file.path for one in lines.dataset().get_fragments() for file in one.data_files()}
    (damage, *_) = audit(recipe).damages
    assert damage.data_files and files.issuperset(damage.data_files)
    assert repair(recipe, RESOURCES, deep=True).outcome == "done"
    assert run(recipe).outcome == "done" and audit(recipe).damages == ()


def test_run_of_a_file_without_a_line_keeps_what_a_build_listed_of_its_rows(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"long": "word " * 20, "short": "word"})
    recipe = recipe_for(tmp_path)
    run(recipe)
    build_space(recipe, ModelSpec(name="hashing", dim=16, max_tokens=8), RESOURCES, "build")
    listed = rejects(recipe)
    assert [reject["reason"] for reject in listed] == ["truncated"]
    table_of(recipe).lake.table("docs__files").dataset().delete("true")
    assert run(recipe).outcome == "done" and rejects(recipe) == listed
    uri = listed[0]["source_uri"]  # as when its list was recorded by an earlier commit
    ledger.record_rejects(table_of(recipe), [], (), "again", same_rows=[uri])
    assert rejects(recipe) == listed
    assert audit(recipe).damages == ()
    write_jsonl(tmp_path, "a.jsonl", {"long": "short now", "short": "word"})
    assert run(recipe).outcome == "done" and rejects(recipe) == []


def test_audit_finds_a_file_that_is_read_as_a_whole_but_not_by_column(tmp_path: Path) -> None:
    recipe = made(tmp_path)
    before = rows(recipe, *COLUMNS)
    file = data_files(tmp_path)[0]
    content = bytearray(file.read_bytes())
    content[-26] ^= 0x80  # in the footer: where the offsets of the columns begin
    file.write_bytes(content)
    (damage,) = [one for one in audit(recipe).damages if file.name in one.data_files]
    assert damage.n_rows == 25 and "cannot be read" in damage.what
    assert repair(recipe, RESOURCES, deep=True).outcome == "done"
    assert run(recipe).outcome == "done"
    assert rows(recipe, *COLUMNS) == before and audit(recipe).damages == ()


@pytest.mark.slow
@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("table", ["docs", "docs__files", "docs__rejects"])
@pytest.mark.parametrize("damage", ["short", "missing"])
def test_repair_short_and_missing_files_are_taken_out_and_made_again(
    tmp_path: Path, table: str, damage: str, deep: bool
) -> None:
    recipe = made(tmp_path)
    before, left_out = rows(recipe, *COLUMNS), [row["source_uri"] for row in rejects(recipe)]
    file = data_files(tmp_path, table)[0]
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-100])
    found = audit_recipe(recipe, RESOURCES, deep)
    assert found.outcome == "failed"
    assert [one.table for one in found.damages if file.name in one.data_files] == [table]
    assert repair(recipe, RESOURCES, deep).outcome == "done"
    assert run(recipe).outcome == "done"
    assert rows(recipe, *COLUMNS) == before
    assert [row["source_uri"] for row in rejects(recipe)] == left_out
    assert audit(recipe).damages == ()


@pytest.mark.slow
@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("index", [True, False])
def test_audit_lost_files_name_the_sources_of_their_rows(
    tmp_path: Path, deep: bool, index: bool
) -> None:
    recipe = made(tmp_path)
    write_jsonl(tmp_path, "c.jsonl", {f"c{n}": f"other words {n}" for n in range(9)})
    (tmp_path / "src" / "b.jsonl").unlink()
    run(recipe, allow_removals=True)
    if not index:
        table_of(recipe).dataset().drop_index("source_uri_idx")
    a, c = data_files(tmp_path)
    c.write_bytes(c.read_bytes()[:-10])
    (damage,) = files_lost(recipe, deep)
    uri = {name: str(tmp_path / "src" / f"{name}.jsonl") for name in "abc"}
    told = (uri["c"],) if index else ()  # lines of rows that went are in the ledger too
    assert (damage.source_uris, damage.n_sources, damage.n_rows) == (told, len(told), 9)
    a.unlink()
    lost = {one.data_files: one for one in files_lost(recipe, deep)}
    assert lost[a.name,].n_rows == 25 and lost[c.name,].n_rows == 9
    assert lost[a.name,].source_uris == ((uri["a"],) if index else ())


def test_audit_lost_file_of_vectors_names_the_sources_by_the_column_that_is_left(
    tmp_path: Path,
) -> None:
    recipe = made(tmp_path)
    dataset = table_of(recipe).dataset()
    dataset.drop_index("source_uri_idx")
    dataset.add_columns({"more": "1"})
    (more,) = {f.data_files()[-1].path for f in list(dataset.get_fragments())[:1]}
    (tmp_path / "lake" / "docs.lance" / "data" / more).unlink()
    (damage,) = files_lost(recipe, deep=False)
    assert damage.data_files == (more,) and damage.n_rows == 25
    assert damage.source_uris == (str(tmp_path / "src" / "a.jsonl"),)


def test_audit_lost_file_without_an_index_is_told_by_the_ledger_where_it_adds_up(
    tmp_path: Path,
) -> None:
    recipe = made(tmp_path)
    table_of(recipe).dataset().drop_index("source_uri_idx")
    data_files(tmp_path)[1].unlink()
    (damage,) = files_lost(recipe, deep=False)
    assert damage.source_uris == (str(tmp_path / "src" / "b.jsonl"),)


def test_audit_lost_file_of_many_sources_counts_them_all(tmp_path: Path) -> None:
    for n in range(50):
        write_jsonl(tmp_path, f"{n:02}.jsonl", {"x": f"text {n}", "y": "more"})
    recipe = recipe_for(tmp_path)
    run(recipe, RESOURCES)
    (file,) = data_files(tmp_path)
    file.unlink()
    (damage,) = files_lost(recipe, deep=False)
    assert (len(damage.source_uris), damage.n_sources, damage.n_rows) == (20, 50, 100)


def files_lost(recipe: Recipe, deep: bool) -> list[Damage]:
    """Damages of data files of the table."""
    found = audit_recipe(recipe, RESOURCES, deep, sample_rows=0).damages
    return [one for one in found if one.kind == "file" and one.table == "docs"]


@pytest.mark.slow
def test_audit_index_that_lost_a_value_is_found_and_made_anew(tmp_path: Path) -> None:
    """A flipped bit can take a value out of an index that opens as well as ever."""
    recipe = made(tmp_path)
    uri = str(tmp_path / "src" / "b.jsonl")
    for file in (tmp_path / "lake/docs.lance/_indices").rglob("bitmap_page_lookup.lance"):
        content = file.read_bytes()
        file.write_bytes(content.replace(b"b.jsonl", b"z.jsonl"))
    found = audit(recipe)
    assert [one.index for one in found.damages] == ["source_uri_idx"]
    assert "it finds 0 of 25 rows" in found.damages[0].what
    assert repair(recipe, RESOURCES, deep=True).outcome == "done"
    assert table_of(recipe).dataset().count_rows(f"source_uri = '{uri}'") == 25
    assert audit(recipe).damages == ()


@pytest.mark.parametrize(("damage", "why"), [("short", "bytes"), ("zeros", "at cannot be read")])
def test_damaged_feedback_is_named_and_stays_as_it_is(
    tmp_path: Path, damage: str, why: str
) -> None:
    recipe = made(tmp_path)
    opinion = Feedback(datetime.now(UTC), "some words", "a1", "relevant")
    append_feedback(table_of(recipe), [opinion])
    assert audit(recipe).damages == ()
    (file,) = data_files(tmp_path, "docs__feedback")
    content = file.read_bytes()
    kept = content[: len(content) // 2]
    harmed = kept if damage == "short" else kept + bytes(len(content) - len(kept))
    file.write_bytes(harmed)
    (found,) = audit(recipe).damages
    assert (found.kind, found.table, found.data_files) == (
        "feedback", "docs__feedback", (file.name,)
    )  # fmt: skip
    assert why in found.what
    repaired = repair(recipe, RESOURCES, deep=True)
    assert repaired.outcome == "failed" and file.read_bytes() == harmed
    assert "put the damaged file back from a copy" in AuditView(repaired).summary()
    assert run(recipe).outcome == "done"  # feedback holds up no run
    file.write_bytes(content)
    assert audit(recipe).damages == () and list(read_feedback(table_of(recipe))) == [opinion]


@pytest.mark.slow
def test_full_text_index_whose_segments_are_of_two_kinds_is_named_and_made_anew(
    tmp_path: Path,
) -> None:
    """A flipped bit in the manifest: each segment opens, and every search of the words fails."""
    recipe = made(tmp_path)
    write_jsonl(tmp_path, "d.jsonl", [{"id": "d", "text": "word and another"}])
    run(recipe)
    manifest = newest_manifest(table_of(recipe))
    with_lower_case, without = b"8\x01@\x01H", b"8\x00@\x01H"
    content = manifest.read_bytes()
    assert content.count(with_lower_case) > 1
    manifest.write_bytes(content.replace(with_lower_case, without, 1))
    with pytest.raises(LakeError, match="a data file or an index is not what was written"):
        hybrid(recipe, "another")
    (damage,) = audit(recipe).damages
    assert damage.index == "text_idx" and "across segments" in damage.what
    assert run(recipe).outcome == "done"
    assert hybrid(recipe, "another") == "d" and audit(recipe).damages == ()


def hybrid(recipe: Recipe, words: str) -> str:
    """The first document that a hybrid search finds."""
    (hit,) = table_of(recipe).search(words, load(recipe.model, RESOURCES), k=1, hybrid=True)
    return hit.doc_id


@pytest.mark.slow
def test_audit_ledger_line_that_does_not_hold_is_found(tmp_path: Path) -> None:
    recipe = made(tmp_path)
    lines = ledger.ledger_table(table_of(recipe)).dataset()
    lines.update({"chunks": "chunks + 1"}, where="source_uri LIKE '%a.jsonl'")
    (damage,) = audit(recipe).damages
    assert damage.table == "docs__files" and "a.jsonl: its chunks do not add up" in damage.what
    assert repair(recipe, RESOURCES, deep=True).outcome == "done"
    assert run(recipe).outcome == "done"
    assert audit(recipe).damages == ()


@pytest.mark.parametrize(
    "values",
    [
        {"tokens": "tokens + 1"},
        {"embedded": "embedded - 1", "reused": "reused + 1"},
        {"run_id": "'another'"},
        {"cost": "1.5"},
        {"checksum": "'0123456789abcdef'"},
    ],
)
def test_audit_values_of_a_ledger_line_are_found_and_written_again(
    tmp_path: Path, values: dict[str, str]
) -> None:
    recipe = made(tmp_path)
    before, keys = rows(recipe, *COLUMNS), ledger_keys(recipe)
    beside(recipe, "files").update(values, where="source_uri LIKE '%b.jsonl'")
    (damage,) = audit(recipe).damages
    assert damage.table == "docs__files" and damage.data_files
    assert "b.jsonl: its values are not what was written" in damage.what
    assert repair(recipe, RESOURCES, deep=True).outcome == "done"
    assert run(recipe).outcome == "done"
    assert (rows(recipe, *COLUMNS), ledger_keys(recipe)) == (before, keys)
    assert audit(recipe).damages == ()


def test_audit_damaged_ledger_line_takes_no_rows_out(tmp_path: Path) -> None:
    recipe = made(tmp_path)
    write_jsonl(tmp_path, "b.jsonl", {"b": "a second version of the file"})
    run(recipe)
    before = rows(recipe, *COLUMNS)
    beside(recipe, "files").update({"seconds": "seconds + 1"}, where="source_uri LIKE '%b.jsonl'")
    assert {damage.table for damage in audit(recipe).damages} == {"docs__files"}
    repair(recipe, RESOURCES, deep=True)
    assert rows(recipe, *COLUMNS) == before
    report = run(recipe)
    assert (report.embedded, report.reused, report.outcome) == (0, 1, "done")
    assert rows(recipe, *COLUMNS) == before and audit(recipe).damages == ()


def test_repair_lines_that_went_with_a_file_of_the_ledger_are_written_again(
    tmp_path: Path,
) -> None:
    recipe = made(tmp_path)
    before, keys = rows(recipe, *COLUMNS), ledger_keys(recipe)
    for file in data_files(tmp_path, "docs__files"):
        file.write_bytes(file.read_bytes()[:-100])
    repair(recipe, RESOURCES, deep=True)
    assert ledger_keys(recipe) == [] and rows(recipe, *COLUMNS) == before
    report = run(recipe)
    assert (report.embedded, report.reused, report.outcome) == (0, 75, "done")
    assert (rows(recipe, *COLUMNS), ledger_keys(recipe)) == (before, keys)
    assert audit(recipe).damages == ()


@pytest.mark.parametrize(
    "values",
    [
        {"position": "position + 64"},
        {"reason": "'empty_tezt'"},
        {"source_uri": "replace(source_uri, 'b.jsonl', 'c.jsonl')"},
        {"source_uri": "replace(source_uri, 'b.jsonl', 'z.jsonl')"},
        {"run_id": "'another'"},
        {"checksum": "'0123456789abcdef'"},
    ],
)
def test_audit_values_of_a_reject_are_found_and_listed_again(
    tmp_path: Path, values: dict[str, str]
) -> None:
    recipe = made(tmp_path)
    before, listed = rows(recipe, *COLUMNS), listed_rejects(recipe)
    beside(recipe, "rejects").update(values, where="source_uri LIKE '%b.jsonl'")
    (damage,) = audit(recipe).damages
    assert damage.table == "docs__rejects" and "the values are not what was written" in damage.what
    assert damage.data_files and damage.n_rows == 1
    assert repair(recipe, RESOURCES, deep=True).outcome == "done"
    assert rows(recipe, *COLUMNS) == before
    report = run(recipe)
    assert (report.embedded, report.outcome) == (0, "done")
    assert (rows(recipe, *COLUMNS), listed_rejects(recipe)) == (before, listed)
    assert audit(recipe).damages == ()


def test_repair_reject_that_is_counted_nowhere_is_listed_again(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"x": " ".join(f"word{n}" for n in range(400))})
    model = {"over_length": "truncate", "max_tokens": 64}
    recipe = recipe_for(tmp_path, chunk={"strategy": "none"}, model=model)
    run(recipe)
    listed = listed_rejects(recipe)
    assert [reject["reason"] for reject in listed] == ["truncated"]
    beside(recipe, "rejects").update({"detail": "'another'"})
    assert repair(recipe, RESOURCES, deep=True).outcome == "done"
    assert run(recipe).outcome == "done"
    assert listed_rejects(recipe) == listed and audit(recipe).damages == ()


def test_run_on_tables_from_before_checksums_adds_their_column(tmp_path: Path) -> None:
    recipe = made(tmp_path)
    before, listed = rows(recipe, *COLUMNS), listed_rejects(recipe)
    for name in ("files", "rejects"):
        beside(recipe, name).drop_columns(["checksum"])
    assert audit(recipe).damages == () and run(recipe).outcome == "done"
    assert listed_rejects(recipe) == listed
    write_jsonl(tmp_path, "d.jsonl", {"d": "words", "e": " "})
    assert run(recipe).outcome == "done"
    for name, n_with in (("files", 1), ("rejects", 1)):
        checksums = beside(recipe, name).to_table(columns=["checksum"]).column("checksum")
        assert (len(checksums), len(checksums) - checksums.null_count) == (4, n_with)
    assert [row for row in rows(recipe, *COLUMNS) if row["doc_id"] != "d"] == before
    assert audit(recipe).damages == ()


@pytest.mark.parametrize("name", ["files", "rejects"])
def test_audit_lines_that_are_read_by_column_but_not_as_a_whole_are_found(
    tmp_path: Path, name: str
) -> None:
    recipe = made(tmp_path)
    before, listed = rows(recipe, *COLUMNS), listed_rejects(recipe)
    file = data_files(tmp_path, f"docs__{name}")[0]
    content = bytearray(file.read_bytes())
    no_parent = bytes([0xFF] * 9 + [0x01])  # of a column, in the schema in the footer
    (_, second, *_) = (at.start() for at in re.finditer(re.escape(no_parent), content))
    content[second + 3] ^= 0x04
    file.write_bytes(content)
    assert [damage.data_files for damage in audit(recipe).damages] == [(file.name,)]
    assert repair(recipe, RESOURCES, deep=True).outcome == "done"
    assert run(recipe).outcome == "done"
    assert (rows(recipe, *COLUMNS), listed_rejects(recipe)) == (before, listed)
    assert audit(recipe).damages == ()


@pytest.mark.parametrize("name", ["docs", "docs__files", "docs__rejects"])
def test_audit_list_of_deleted_rows_that_ends_whoever_reads_it_is_found(
    tmp_path: Path, name: str
) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"x": "words", "y": "others", "empty": " "})
    write_jsonl(tmp_path, "b.jsonl", {"z": "more", "empty": " "})
    recipe = recipe_for(tmp_path, max_rejected_share=1)
    run(recipe, Resources())
    before, listed = rows(recipe, *COLUMNS), listed_rejects(recipe)
    table_of(recipe).lake.table(name).dataset().delete("source_uri LIKE '%b.jsonl'")
    (file,) = (tmp_path / "lake" / f"{name}.lance" / "_deletions").iterdir()
    file.write_bytes(of_endless_length(file.read_bytes()))
    damages = audit(recipe).damages
    assert any(each.table == name and file.name in each.what for each in damages)
    assert repair(recipe, RESOURCES, deep=True).outcome == "done"
    assert run(recipe).outcome == "done"
    assert (rows(recipe, *COLUMNS), listed_rejects(recipe)) == (before, listed)
    assert audit(recipe).damages == ()


def of_endless_length(content: bytes) -> bytes:
    """An Arrow file with a flipped bit, so that a length in it is more than any memory has."""
    for at, bit in product(range(len(content)), range(8)):
        changed = content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :]
        try:
            pa.ipc.open_file(changed).read_all()
        except pa.ArrowMemoryError:
            return changed
        except (pa.ArrowException, OSError, ValueError):
            continue
    raise AssertionError("no bit does that")


def beside(recipe: Recipe, name: str) -> lance.LanceDataset:
    """The ledger or the rejects of a recipe's table."""
    return table_of(recipe).lake.table(f"docs__{name}").dataset()


def ledger_keys(recipe: Recipe) -> list[str]:
    """The file keys that have lines."""
    lines = ledger.ledger_rows(ledger.open_ledger(table_of(recipe)), ["file_key"])
    keys: list[str] = lines.column("file_key").to_pylist()
    return sorted(keys)


def listed_rejects(recipe: Recipe) -> list[dict[str, Any]]:
    """What is listed, whenever it was."""
    stamps = ("run_id", "rejected_at")
    return [
        {name: value for name, value in reject.items() if name not in stamps}
        for reject in rejects(recipe)
    ]


@pytest.mark.parametrize(("old", "new"), [('"name"', '"nbme"'), ('"hashing"', '"hashinf"')])
def test_audit_of_a_cutter_that_was_not_written_is_refused(
    tmp_path: Path, old: str, new: str
) -> None:
    recipe = made(tmp_path)
    dataset = table_of(recipe).dataset()
    metadata = {key.decode(): value.decode() for key, value in dataset.schema.metadata.items()}
    metadata["embedlake:cutter"] = metadata["embedlake:cutter"].replace(old, new)
    dataset.update_schema_metadata(metadata, replace=True)
    for look in (audit, run):
        with pytest.raises(LakeError, match=r"metadata 'embedlake:cutter' is damaged"):
            look(recipe)


def test_audit_of_a_list_of_indexes_that_is_damaged_names_the_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def describe_indices(_dataset: lance.LanceDataset) -> Any:
        raise RuntimeError(
            "LanceError(Index): Index fields should be identical across all segments"
        )

    recipe = made(tmp_path)
    monkeypatch.setattr(lance.LanceDataset, "describe_indices", describe_indices)
    with pytest.raises(LakeError, match=r"manifest of version .* is damaged"):
        audit(recipe)


def test_audit_of_no_table_and_of_another_recipe_s_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LakeError, match="there is no table"):
        audit(recipe_for(tmp_path))
    made(tmp_path)
    with pytest.raises(LakeError, match="belongs to the recipe"):
        audit(recipe_for(tmp_path, name="another"))
    assert issubclass(LakeError, EmbedlakeError)


def test_is_another_noise_over_all_values_is_none_and_one_value_is() -> None:
    chance = np.random.default_rng(0)
    vectors = chance.standard_normal((200, 384)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    noisy = vectors + chance.normal(0, 3e-4, vectors.shape).astype(np.float32)
    assert not is_another(noisy, vectors, is_half=False).any()
    assert not is_another(vectors.astype(np.float16).astype(np.float32), vectors, True).any()
    for size in (1e-5, 1e-2, np.nan, np.inf):
        other = vectors.copy()
        other[3, 5] += size
        assert np.flatnonzero(is_another(other, vectors, is_half=False)).tolist() == [3]


def test_rows_whose_line_a_cut_off_run_did_not_write_are_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = made(tmp_path)
    write_jsonl(tmp_path, "a.jsonl", {"a0": "another text"})

    def cut_off(*_arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ledger, "record_entries", cut_off)
        run(recipe)
    before = rows(recipe, *COLUMNS)
    for deep in (False, True):
        assert repair(recipe, RESOURCES, deep=deep).damages == ()
    assert run(recipe).outcome == "done"
    assert rows(recipe, *COLUMNS) == before


def test_repair_that_took_out_the_line_of_a_changed_file_leaves_its_rows(tmp_path: Path) -> None:
    recipe = made(tmp_path)
    write_jsonl(tmp_path, "a.jsonl", {"a0": "another text"})
    run(recipe)
    before = rows(recipe, *COLUMNS)
    lines = ledger.ledger_table(table_of(recipe)).dataset()
    lines.update({"tokens": "tokens + 1"}, where="source_uri LIKE '%a.jsonl' AND documents = 1")
    assert repair(recipe, RESOURCES, deep=True).damages
    assert repair(recipe, RESOURCES, deep=True).damages == ()
    assert rows(recipe, *COLUMNS) == before
    assert run(recipe).embedded == 0
    assert audit(recipe).damages == ()
