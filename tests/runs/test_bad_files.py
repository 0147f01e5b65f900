"""A folder of every kind of bad file beside good ones: nothing is lost, and every omission has its
place and its reason."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import fpdf
import pyarrow as pa
import pyarrow.ipc as ipc
import pyarrow.parquet as pq
import pytest

from embedding_core.recipe import SourceSpec
from embedding_core.records import Document
from embedding_core.sources import discover, read_documents
from tests.compressed import COMPRESSORS
from tests.driver import recipe_for, rejects, rows, run

LINES = b"".join(b'{"id": "%d", "text": "words %d"}\n' % (n, n * 7919) for n in range(300))


def pdf(text: str | None, password: str | None = None) -> bytes:
    """A page with a text, or with a drawing alone."""
    document = fpdf.FPDF()
    if password is not None:
        document.set_encryption(owner_password="owner", user_password=password)
    document.add_page()
    document.set_font("helvetica", size=12)
    if text is None:
        document.rect(10, 10, 50, 50, style="F")
    else:
        document.multi_cell(0, text=text)
    return bytes(document.output())


def archive() -> bytes:
    data = io.BytesIO()
    zipfile.ZipFile(data, "w").close()
    return data.getvalue()


def arrow_file() -> bytes:
    table, sink = pa.table({"id": ["1"] * 99, "text": ["x"] * 99}), io.BytesIO()
    with ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


Rejects = list[tuple[int | None, str]]

BAD: dict[str, tuple[Callable[[], bytes], Rejects]] = {
    "delimiter.csv": (lambda: b"id;text\n1;x\n", [(None, "missing_column")]),
    "ragged.csv": (lambda: b"id,text\n1,ok\n2\n3,a,b\n", [(1, "ragged_row"), (2, "ragged_row")]),
    "mac.csv": (lambda: b"id,text\r1,x\r", [(None, "malformed_row")]),
    "wide.csv": (lambda: b"," * 1_500_000, [(None, "too_many_values")]),
    "qrels.tsv": (lambda: b"query-id\tcorpus-id\tscore\n1\t2\t1\n", [(None, "missing_column")]),
    "types.jsonl": (
        lambda: b'{"id": 1, "text": 2}\n{"id": 1.5, "text": "x"}\n{"id": [1], "text": "x"}\n',
        [(0, "wrong_type"), (1, "wrong_type"), (2, "wrong_type")],
    ),
    "nulls.jsonl": (
        lambda: b'{"id": null, "text": "x"}\n{"id": "1", "text": null}\n{"id": "2"}\n',
        [(0, "missing_field"), (1, "missing_field"), (2, "missing_field")],
    ),
    "nested.jsonl": (
        lambda: b'{"id": "1", "text": "ok", "meta": 3}\n{"id": "2", "text": "ok", "meta": null}\n',
        [(0, "wrong_type")],
    ),
    "locked.pdf": (lambda: pdf("secret", password="x"), [(None, "encrypted")]),
    "scan.pdf": (lambda: pdf(None), [(0, "no_text")]),
    "cut.pdf": (lambda: pdf("text " * 99)[:-99], [(None, "corrupt_pdf")]),
    "app.html": (lambda: b"<html><body><div id=app></div></body></html>", [(0, "no_text")]),
    "attributes.html": (
        lambda: b"<p " + b" ".join(b"a%d" % n for n in range(9_999)) + b">x",
        [(None, "too_many_values")],
    ),
    "empty.docx": (archive, [(None, "corrupt_office")]),
    "empty.jsonl.gz": (lambda: b"", [(None, "truncated_compressed")]),
    "named.parquet": (lambda: b"words, no columns", [(None, "corrupt_parquet")]),
    "named.jsonl.gz": (lambda: b"words, not compressed", [(None, "corrupt_compressed")]),
    "cut.arrow": (lambda: arrow_file()[:-9], [(None, "corrupt_arrow")]),
    "flat.json": (lambda: b'[{"id": "1", "text": "x"}', [(None, "malformed_json")]),
    "start.jsonl.bz2": (lambda: bz2.compress(LINES)[:5], [(None, "truncated_compressed")]),
    "cut.jsonl.gz": (lambda: gzip.compress(LINES)[:-5], [(None, "truncated_compressed")]),
    "cut.jsonl.bz2": (lambda: bz2.compress(LINES)[:-5], [(None, "truncated_compressed")]),
    "cut.jsonl.zst": (lambda: COMPRESSORS[".zst"](LINES)[:-5], [(None, "truncated_compressed")]),
}


@pytest.mark.slow
def test_run_over_every_kind_of_bad_file_keeps_what_is_good_and_ends_with_three(
    tmp_path: Path,
) -> None:
    source = tmp_path / "src"
    (source / "a folder.jsonl").mkdir(parents=True)
    (source / "good.jsonl").write_bytes(LINES)
    (source / "padded.jsonl.gz").write_bytes(gzip.compress(LINES) + b"\0" * 512)
    for name, (made, _) in BAD.items():
        (source / name).write_bytes(made())
    column = {"field": "meta.lang", "type": "string"}
    recipe = recipe_for(tmp_path, source={"metadata": {"lang": column}})
    report = run(recipe)
    assert report.outcome == "rejected" and report.verification.passed
    listed: dict[str, Rejects] = {name: [] for name in BAD}
    for reject in rejects(recipe):
        listed[Path(str(reject["source_uri"])).name] += [(reject["position"], reject["reason"])]
        assert reject["detail"]
    assert {name: sorted(places, key=str) for name, places in listed.items()} == {
        name: expected for name, (_, expected) in BAD.items()
    }
    good = [(name, str(n)) for name in ("good.jsonl", "padded.jsonl.gz") for n in range(300)]
    of_bad_files = [("nested.jsonl", "2"), ("ragged.csv", "1")]
    assert sorted(
        (Path(str(row["source_uri"])).name, row["doc_id"])
        for row in rows(recipe, "source_uri", "doc_id")
    ) == sorted(good + of_bad_files)


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffafter a byte order mark",
        "👩‍👩‍👧 🇩🇪 é\u0301",
        "\u202bשלום עולם\u202c مرحبا",
        "caf\u00e9",
        "cafe\u0301",
        "\u2028 line\u0085ends\x0b\x0c\x1c",
        "x" * 10_000_000,
    ],
    ids=["bom", "emoji", "right-to-left", "nfc", "nfd", "line ends", "ten megabytes"],
)
@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet"])
def test_text_of_every_kind_is_read_exactly(tmp_path: Path, text: str, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.table({"id": ["1"], "text": [text]}), path)
    elif suffix == ".csv":
        path.write_bytes(f'id,text\n1,"{text}"\n'.encode())
    else:
        record = json.dumps({"id": "1", "text": text}, ensure_ascii=False)
        path.write_bytes((f"[{record}]" if suffix == ".json" else record).encode())
    spec = SourceSpec(uri=str(path), id="id")
    (file,) = discover(spec).files
    (item,) = read_documents(file, spec)
    assert isinstance(item, Document) and item.text == text
