"""Files with vectors in as tables: exports bit by bit, others' files, and all that is refused."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

from embedding_core.encoder import Encoder
from embedding_core.errors import LakeError, ModelError, SetupError, UsageError
from embedding_core.exports.destination import Destination
from embedding_core.exports.exporter import KNOWN_EXPORTERS
from embedding_core.exports.spec import ExportSpec
from embedding_core.identity import text_hash
from embedding_core.lake import ledger
from embedding_core.lake.table import table_of
from embedding_core.recipe import Recipe, Resources
from embedding_core.runs.embed.planning import plan
from embedding_core.runs.exchange.exporting import begin_export, export
from embedding_core.runs.exchange.importing import ImportReport, ImportSpec, import_rows
from embedding_core.runs.repair import audit
from tests.driver import recipe_for, run, write_jsonl
from tests.s3 import S3Server

METADATA = {"metadata": {"year": "int", "at": "timestamp"}}
TEXTS = [f"naïve text 中文 number {n * 7919}" for n in range(12)]


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    for name in "ab":
        write_jsonl(
            tmp_path,
            f"{name}.jsonl",
            [{"id": str(n), "text": f"{text} {name}", "year": n if n % 3 else None,
              "at": "2024-01-02T03:04:05.678Z"} for n, text in enumerate(TEXTS)],
        )  # fmt: skip
    made = recipe_for(tmp_path, source=METADATA)
    run(made)
    return made


def into(recipe: Recipe, folder: Path, **model: Any) -> Recipe:
    """The recipe over another lake."""
    content = recipe.model_dump(mode="json")
    content["lake"]["uri"] = str(folder)
    content["model"] |= model
    return Recipe.load(content)


def imported(recipe: Recipe, origin: Path | str, **spec: Any) -> ImportReport:
    return import_rows(recipe, Resources(), str(origin), ImportSpec(**spec))


def table(recipe: Recipe) -> pa.Table:
    return table_of(recipe).to_arrow()


def vectors(rows: pa.Table) -> bytes:
    numbers: bytes = rows.column("vector").combine_chunks().flatten().to_numpy().tobytes()
    return numbers


@pytest.mark.parametrize("as_list", [True, False])
@pytest.mark.parametrize("to", list(KNOWN_EXPORTERS.built_in))
def test_import_of_an_export_has_equal_rows_and_vectors_bit_by_bit(
    recipe: Recipe, tmp_path: Path, to: str, as_list: bool
) -> None:
    names = {"doc_id": "prompt_id", "vector": "embedding", "text": "year", "year": "text"}
    spec = ExportSpec(to=to, shard_rows=7, as_list=as_list, rename=names)
    export(recipe, spec, str(tmp_path / "out"))
    copy = into(recipe, tmp_path / "copy")
    report = imported(copy, tmp_path / "out")
    assert table(copy).equals(table(recipe))
    snapshots = [table_of(each).open() for each in (copy, recipe)]
    assert snapshots[0].space() == snapshots[1].space()
    assert snapshots[0].cutter() == snapshots[1].cutter()
    assert vectors(table(copy)) == vectors(table(recipe))
    assert (report.rows, report.columns_made, report.columns_left_out) == (24, (), ())
    assert report.checked_rows > 0 and report.unchecked is None
    assert plan(copy).is_empty
    keys = table(copy).column("file_key").unique().to_pylist()
    lines = ledger.entries(ledger.open_ledger(table_of(copy)))
    counts = [line.counts for line in lines.values()]
    assert sorted(lines) == sorted(keys)
    assert sum(each.rows for each in counts) == 24 and all(each.balances for each in counts)
    assert sum(each.documents for each in counts) == 24
    assert sum(each.tokens for each in counts) == pc.sum(table(copy).column("n_tokens")).as_py()
    assert audit(copy, Resources(), deep=True).damages == ()


def test_import_of_a_key_that_two_files_have_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    export(recipe, ExportSpec(to="parquet"), str(tmp_path / "out"))
    copy, swapped = into(recipe, tmp_path / "copy"), {"file_key": "doc_id", "doc_id": "file_key"}
    with pytest.raises(SetupError, match=r"a\.jsonl.* have the file_key '0'.*leave the column"):
        imported(copy, tmp_path / "out", names=swapped)
    assert len(table(copy)) == 0


@pytest.mark.parametrize("by_others", [False, True])
def test_import_of_some_rows_of_a_file_leaves_the_file_to_be_read(
    recipe: Recipe, tmp_path: Path, by_others: bool
) -> None:
    whole, copy = table(recipe), into(recipe, tmp_path / "copy")
    if by_others:
        (tmp_path / "out").mkdir()
        pq.write_table(whole.slice(0, 3), tmp_path / "out" / "rows.parquet")
    else:
        export(recipe, ExportSpec(to="parquet", where="year = 1"), str(tmp_path / "out"))
    imported(copy, tmp_path / "out")
    assert 0 < len(table(copy)) < len(whole)
    run(copy)
    assert table(copy).sort_by("chunk_id").equals(whole.sort_by("chunk_id"))
    assert plan(copy).is_empty


def test_run_a_slip_in_the_recipe_takes_no_imported_rows_away(
    recipe: Recipe, tmp_path: Path
) -> None:
    export(recipe, ExportSpec(to="parquet"), str(tmp_path / "out"))
    copy = into(recipe, tmp_path / "copy")
    imported(copy, tmp_path / "out")
    content = copy.model_dump(mode="json")
    content["source"]["text"] = "titel"
    slip = Recipe.load(content)
    with pytest.raises(SetupError, match=r"100% of the table's files would lose their rows"):
        run(slip)
    assert len(table(copy)) == 24
    write_jsonl(tmp_path, "c.jsonl", [{"id": "bad", "text": " "}])
    assert plan(copy).lost_share == 0.0


def test_import_of_chunks_counts_each_document_once(recipe: Recipe, tmp_path: Path) -> None:
    words = " ".join(f"word{n}" for n in range(200))
    write_jsonl(tmp_path, "a.jsonl", {"long": words, "short": "words"})
    run(recipe)
    export(recipe, ExportSpec(to="parquet", shard_rows=2), str(tmp_path / "out"))
    copy = into(recipe, tmp_path / "copy")
    imported(copy, tmp_path / "out")
    lines = ledger.entries(ledger.open_ledger(table_of(copy))).values()
    assert sorted(line.counts.documents for line in lines) == [2, 12]
    assert max(line.counts.rows for line in lines if line.counts.documents == 2) > 2


def test_import_without_the_model_takes_the_space_of_the_export(
    recipe: Recipe, tmp_path: Path
) -> None:
    export(recipe, ExportSpec(to="npy"), str(tmp_path / "out"))
    elsewhere = into(recipe, tmp_path / "copy", name=str(tmp_path / "gone"), dim=None)
    report = imported(elsewhere, tmp_path / "out")
    assert table_of(elsewhere).space() == table_of(recipe).space()
    assert report.checked_rows == 0 and "gone" in str(report.unchecked)
    assert table(elsewhere).equals(table(recipe))


def test_import_of_some_columns_makes_the_others(recipe: Recipe, tmp_path: Path) -> None:
    spec = ExportSpec(to="jsonl", columns=("text", "doc_id", "vector", "year"))
    export(recipe, spec, str(tmp_path / "out"))
    copy = into(recipe, tmp_path / "copy")
    report = imported(copy, tmp_path / "out")
    rows, expected = table(copy), table(recipe)
    for column in ("text", "doc_id", "year", "text_hash", "n_tokens", "char_start", "char_end"):
        assert rows.column(column).to_pylist() == expected.column(column).to_pylist()
    assert vectors(rows) == vectors(expected)
    assert "chunk_id" in report.columns_made and "at" in report.columns_made


def encoded(texts: list[str], dim: int = 32) -> np.ndarray:
    return Encoder.load("hashing", dim=dim).encode_documents(texts)


def others(folder: Path, matrix: np.ndarray, kind: str = "list") -> Path:
    """Somebody's Parquet file: other names, double precision, a column too many."""
    folder.mkdir(exist_ok=True)
    lists = {
        "list": pa.array(matrix.astype(np.float64).tolist(), pa.list_(pa.float64())),
        "large": pa.array(matrix.tolist(), pa.large_list(pa.float32())),
        "fixed": pa.array(matrix.tolist(), pa.list_(pa.float32(), matrix.shape[1])),
        "half": pa.array(matrix.astype(np.float16).tolist(), pa.list_(pa.float16())),
    }
    rows = {
        "prompt_id": [f"p{n // 2}" for n in range(len(matrix))],
        "body": TEXTS[: len(matrix)],
        "embedding": lists[kind],
        "year": [str(n) for n in range(len(matrix))],
        "extra": [None] * len(matrix),
    }
    pq.write_table(pa.table(rows), folder / "rows.parquet")
    return folder


NAMES = {"doc_id": "prompt_id", "text": "body", "vector": "embedding"}


@pytest.fixture
def new(tmp_path: Path) -> Recipe:
    (tmp_path / "src").mkdir()
    return recipe_for(tmp_path, source=METADATA)


@pytest.mark.parametrize("kind", ["list", "large", "fixed", "half"])
def test_import_of_others_files(new: Recipe, tmp_path: Path, kind: str) -> None:
    matrix = encoded(TEXTS)
    report = imported(new, others(tmp_path / "in", matrix, kind), names=NAMES)
    rows = table(new)
    assert rows.column("text").to_pylist() == TEXTS
    assert rows.column("doc_id").to_pylist() == [f"p{n // 2}" for n in range(12)]
    assert rows.column("chunk_index").to_pylist() == [0, 1] * 6
    assert rows.column("year").to_pylist() == list(range(12))
    assert len(set(rows.column("chunk_id").to_pylist())) == 12
    stored = np.array(rows.column("vector").to_pylist())
    assert np.abs(stored - matrix).max() < 1e-3
    assert (report.columns_left_out, report.checked_rows) == (("extra",), 12)
    hit = table_of(new).search("number 7919", Encoder.load("hashing", dim=32), k=1)[0]
    assert hit.text == TEXTS[1]


def test_import_of_a_file_with_metadata_beside_it(new: Recipe, tmp_path: Path) -> None:
    save_file({"embeddings": encoded(TEXTS)}, tmp_path / "v.safetensors")
    pq.write_table(pa.table({"text": TEXTS}), tmp_path / "v.parquet")
    imported(new, tmp_path / "v.safetensors")
    assert table(new).column("doc_id").to_pylist() == [str(n) for n in range(12)]


def test_import_is_a_table_that_runs_go_on_with(recipe: Recipe, tmp_path: Path) -> None:
    export(recipe, ExportSpec(to="parquet"), str(tmp_path / "out"))
    copy = into(recipe, tmp_path / "copy")
    imported(copy, tmp_path / "out")
    write_jsonl(tmp_path, "c.jsonl", {"new": "a text that came later"})
    report = run(copy)
    assert (report.added, len(table(copy))) == (1, 25)


def scaled(matrix: np.ndarray, row: int, factor: float) -> np.ndarray:
    changed = matrix.copy()
    changed[row] *= factor
    return changed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda matrix: scaled(matrix, 5, np.nan), "row 5 of .* has NaN or infinity"),
        (lambda matrix: scaled(matrix, 5, 0.0), "row 5 of .* a vector of zeros"),
        (lambda matrix: scaled(matrix, 5, 2.0), "row 5 of .* length 2.0000"),
        (lambda _matrix: encoded(TEXTS, 16), "16 dimensions, the space has 32"),
        (lambda matrix: matrix[::-1], "not of the recipe's model hashing.*cosine"),
    ],
)
def test_import_of_vectors_that_no_table_takes_is_refused(
    new: Recipe, tmp_path: Path, change: Callable[[np.ndarray], np.ndarray], message: str
) -> None:
    folder = others(tmp_path / "in", np.ascontiguousarray(change(encoded(TEXTS))))
    with pytest.raises(SetupError, match=message):
        imported(new, folder, names=NAMES)
    snapshot = table_of(new).open_if_made()
    assert snapshot is None or snapshot.n_rows == 0


def test_import_normalizes_when_it_is_asked_to(new: Recipe, tmp_path: Path) -> None:
    folder = others(tmp_path / "in", scaled(encoded(TEXTS), 5, 2.0))
    assert imported(new, folder, names=NAMES, normalize=True).normalized == 1
    assert np.allclose(np.array(table(new).column("vector").to_pylist()), encoded(TEXTS))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"text": TEXTS}, "no column 'vector'; it has text"),
        ({"body": TEXTS, "vector": [[1.0] * 32] * 12}, "no column 'text'; it has body, vector"),
        ({"text": TEXTS, "vector": ["1"] * 12}, "are string; a column of lists of floats"),
        ({"text": TEXTS, "vector": [None, *[[1.0] * 32] * 11]}, "row 0 of .* has no vector"),
        ({"text": TEXTS, "vector": [[1.0], *[[1.0] * 32] * 11]}, "vectors of several lengths"),
        ({"text": [None, *TEXTS[1:]], "vector": [[1.0] * 32] * 12}, "row 0 of .* has no 'text'"),
        ({"text": TEXTS, "vector": [[1.0] * 32] * 12, "year": ["x"] * 12}, "cannot be int64"),
    ],
)
def test_import_of_columns_that_do_not_fit_is_refused(
    new: Recipe, tmp_path: Path, rows: dict[str, Any], message: str
) -> None:
    pq.write_table(pa.table(rows), tmp_path / "in.parquet")
    with pytest.raises(SetupError, match=message):
        imported(new, tmp_path / "in.parquet", sample_rows=0)


def test_import_of_rows_that_repeat_is_refused(new: Recipe, tmp_path: Path) -> None:
    rows = {"text": ["a"] * 2, "vector": encoded(["a"] * 2).tolist(), "doc_id": ["x"] * 2,
            "chunk_index": [0, 0]}  # fmt: skip
    pq.write_table(pa.table(rows), tmp_path / "in.parquet")
    with pytest.raises(SetupError, match="1 row repeats"):
        imported(new, tmp_path / "in.parquet")


@pytest.fixture
def damaged(recipe: Recipe, tmp_path: Path) -> Path:
    """An export to be damaged."""
    export(recipe, ExportSpec(to="npy", shard_rows=9), str(tmp_path / "out"))
    return tmp_path / "out"


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def changed_space(path: Path) -> None:
    manifest = json.loads(path.read_bytes())
    manifest["space"]["pooling"] = "cls"
    path.write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda out: flipped(out / "data/part-00001.npy"), "part-00001.npy.*another SHA-256"),
        (lambda out: (out / "data/part-00000.parquet").unlink(), "part-00000.parquet.*missing"),
        (lambda out: (out / "data/part-00000.npy").write_bytes(b"x"), "has 1 byte, not"),
        (lambda out: (out / "manifest.json").write_text("{"), "no manifest of an export"),
        (lambda out: (out / "manifest.json").write_text("{}"), "no manifest of an export"),
        (lambda out: changed_space(out / "manifest.json"), "not what space_id"),
    ],
)
def test_import_of_a_damaged_export_is_refused(
    recipe: Recipe, damaged: Path, tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(damaged)
    copy = into(recipe, tmp_path / "copy")
    with pytest.raises(SetupError, match=message):
        imported(copy, damaged)
    assert not table_of(copy).exists()


def hostile_manifest(out: Path, path: str | None = None, **changes: Any) -> None:
    """A manifest that names its first file otherwise, or has other fields."""
    manifest = json.loads((out / "manifest.json").read_bytes()) | changes
    if path is not None:
        shards = [file for file in manifest["files"] if file["path"].endswith("00000.npy")]
        shards[0]["path"] = path
    (out / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    "path", ["../secret.npy", "data/../../secret.npy", "/etc/passwd", "{outside}", "a\0b.npy", ".."]
)
def test_import_of_a_manifest_that_names_a_file_outside_is_refused(
    recipe: Recipe, damaged: Path, tmp_path: Path, path: str
) -> None:
    shutil.copy(damaged / "data/part-00000.npy", tmp_path / "secret.npy")
    hostile_manifest(damaged, path.format(outside=tmp_path / "secret.npy"))
    copy = into(recipe, tmp_path / "copy")
    with pytest.raises(SetupError, match="is missing"):
        imported(copy, damaged)
    assert not table_of(copy).exists()


@pytest.mark.parametrize("to", ["os:system", "../npy", "csv", "", None, ["npy"]])
def test_import_of_a_manifest_of_no_format_is_refused(
    recipe: Recipe, damaged: Path, tmp_path: Path, to: Any
) -> None:
    hostile_manifest(damaged, spec={"to": to})
    with pytest.raises(SetupError, match="no manifest of an export"):
        imported(into(recipe, tmp_path / "copy"), damaged)


def test_import_never_unpickles(new: Recipe, tmp_path: Path) -> None:
    marker = tmp_path / "marker"

    class Poison:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return os.mkdir, (str(marker),)

    poison = np.array([[Poison()], [Poison()]], dtype=object)
    np.save(tmp_path / "in.npy", poison, allow_pickle=True)
    rows = {"doc_id": ["a", "b"], "text": ["x", "y"]}
    pq.write_table(pa.table(rows), tmp_path / "in.parquet")
    with pytest.raises(SetupError):
        imported(new, tmp_path / "in.npy")
    assert not marker.exists()


def test_import_of_an_export_that_is_not_complete_is_refused(
    recipe: Recipe, tmp_path: Path
) -> None:
    destination = Destination.parse(str(tmp_path / "out"), recipe.lake.storage)
    begin_export(recipe, ExportSpec(to="npy"), destination)
    with pytest.raises(SetupError, match="not complete"):
        imported(into(recipe, tmp_path / "copy"), tmp_path / "out")


def test_import_of_another_space_is_refused(recipe: Recipe, damaged: Path, tmp_path: Path) -> None:
    with pytest.raises(LakeError, match=r"differ in .*dim \(32 and 16\)"):
        imported(into(recipe, tmp_path / "copy", dim=16), damaged)


def test_import_of_an_export_without_vectors_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    export(recipe, ExportSpec(to="jsonl", columns=("text",)), str(tmp_path / "out"))
    with pytest.raises(UsageError, match="no vectors"):
        imported(into(recipe, tmp_path / "copy"), tmp_path / "out")


def test_import_into_a_table_with_rows_is_refused(recipe: Recipe, damaged: Path) -> None:
    before = table_of(recipe).open().version
    with pytest.raises(LakeError, match="has 24 rows"):
        imported(recipe, damaged)
    assert table_of(recipe).open().version == before


def test_import_of_others_files_needs_the_model(new: Recipe, tmp_path: Path) -> None:
    folder = others(tmp_path / "in", encoded(TEXTS))
    with pytest.raises(ModelError):
        imported(into(new, tmp_path / "x", name=str(tmp_path / "gone"), dim=None), folder)


@pytest.mark.parametrize("name", ["nothing", "nothing/here.parquet"])
def test_import_of_nothing_says_what_was_looked_for(new: Recipe, tmp_path: Path, name: str) -> None:
    (tmp_path / "nothing").mkdir()
    (tmp_path / "nothing" / "readme.txt").write_text("no rows")
    with pytest.raises(UsageError, match=r"nothing to import.*parquet"):
        imported(new, tmp_path / name)


@pytest.mark.parametrize(
    "column",
    [
        pa.array(TEXTS, pa.string_view()),
        pa.array(TEXTS, pa.large_string()),
        pa.array([text.encode() for text in TEXTS]),
        pa.array(TEXTS).dictionary_encode(),
    ],
    ids=lambda column: str(column.type),
)
def test_import_takes_texts_of_every_kind(new: Recipe, tmp_path: Path, column: pa.Array) -> None:
    rows = {"text": column, "vector": encoded(TEXTS).tolist()}
    pq.write_table(pa.table(rows), tmp_path / "in.parquet")
    imported(new, tmp_path / "in.parquet")
    assert table(new).column("text").to_pylist() == TEXTS


@pytest.mark.parametrize("sample_rows", [0, 64])
@pytest.mark.parametrize("name", ["text", "doc_id"])
def test_import_of_strings_that_are_no_unicode_is_refused(
    new: Recipe, tmp_path: Path, name: str, sample_rows: int
) -> None:
    wrong = pa.Array.from_buffers(pa.string(), 12, pa.array([b"\xff"] * 12).buffers())
    rows = {"text": TEXTS, "vector": encoded(TEXTS).tolist()} | {name: wrong}
    pq.write_table(pa.table(rows), tmp_path / "in.parquet")
    with pytest.raises(SetupError, match=r"in\.parquet .* cannot be read as parquet .*UTF8"):
        imported(new, tmp_path / "in.parquet", sample_rows=sample_rows)


def test_import_makes_the_digests_of_others_files_itself(new: Recipe, tmp_path: Path) -> None:
    """Another tool's hash of a text would give its vector to another text later."""
    rows = {"text": TEXTS, "vector": encoded(TEXTS).tolist(), "text_hash": ["theirs"] * 12,
            "chunk_id": ["c"] * 12}  # fmt: skip
    pq.write_table(pa.table(rows), tmp_path / "in.parquet")
    report = imported(new, tmp_path / "in.parquet")
    assert table(new).column("text_hash").to_pylist() == list(map(text_hash, TEXTS))
    assert len(set(table(new).column("chunk_id").to_pylist())) == 12
    assert {"text_hash", "chunk_id"} <= {*report.columns_made}


@pytest.mark.parametrize(
    "uri", ["hf://datasets/me/x", "hf://datasets/me/x/a.parquet", "https://host/a.parquet"]
)
def test_import_from_a_hub_says_how_to_download_it(new: Recipe, uri: str) -> None:
    with pytest.raises(UsageError, match=r"with `hf download`"):
        imported(new, uri)


def test_import_of_several_formats_asks_for_one(new: Recipe, tmp_path: Path) -> None:
    folder = others(tmp_path / "in", encoded(TEXTS))
    (folder / "x.jsonl").write_text("")
    with pytest.raises(UsageError, match="several formats"):
        imported(new, folder, names=NAMES)
    assert imported(new, folder, names=NAMES, format="parquet").rows == 12
    with pytest.raises(UsageError, match="no format 'csv'"):
        imported(new, folder, format="csv")


@pytest.mark.parametrize("suffix", ["parquet", "jsonl", "arrow"])
def test_import_of_a_file_that_cannot_be_read_names_it(
    new: Recipe, tmp_path: Path, suffix: str
) -> None:
    (tmp_path / f"in.{suffix}").write_bytes(b"no such thing")
    with pytest.raises(SetupError, match=rf"in.{suffix}.*cannot be read as {suffix}"):
        imported(new, tmp_path / f"in.{suffix}")


def test_import_from_s3(recipe: Recipe, tmp_path: Path, s3: S3Server) -> None:
    lake = recipe.lake.model_copy(update={"storage": s3.storage})
    at_s3 = recipe.model_copy(update={"lake": lake})
    uri = f"s3://{s3.new_bucket()}/out"
    export(at_s3, ExportSpec(to="safetensors", shard_rows=7), uri)
    copy = into(at_s3, tmp_path / "copy")
    imported(copy, uri)
    assert table(copy).equals(table(recipe))
    shutil.rmtree(tmp_path / "copy")
    imported(copy, f"{uri}/data/part-00000.safetensors")
    assert len(table(copy)) == 7


@pytest.fixture
def titled(tmp_path: Path) -> Recipe:
    records = [{"id": str(n), "title": f"Title {n}", "text": text} for n, text in enumerate(TEXTS)]
    write_jsonl(tmp_path, "a.jsonl", [*records, {"id": "plain", "text": "without a title"}])
    made = recipe_for(tmp_path, source={"title": "title"})
    run(made)
    return made


@pytest.mark.parametrize("to", ["parquet", "jsonl", "npy"])
def test_import_of_an_export_keeps_contexts(titled: Recipe, tmp_path: Path, to: str) -> None:
    export(titled, ExportSpec(to=to), str(tmp_path / "out"))
    again = into(titled, tmp_path / "again")
    assert imported(again, tmp_path / "out").checked_rows == 13
    assert table(again).column("context").to_pylist()[-1] is None
    assert table(again) == table(titled)
    assert plan(again).is_empty


@pytest.mark.parametrize("sample_rows", [0, 64])
def test_import_of_rows_whose_contexts_were_left_out_is_refused(
    titled: Recipe, tmp_path: Path, sample_rows: int
) -> None:
    columns = ("doc_id", "text", "text_hash", "vector")
    export(titled, ExportSpec(to="parquet", columns=columns), str(tmp_path / "out"))
    again = into(titled, tmp_path / "again")
    with pytest.raises(SetupError, match="has a text_hash that is not of its context"):
        imported(again, tmp_path / "out", sample_rows=sample_rows)
    assert not table_of(again).exists() or not table(again).num_rows
