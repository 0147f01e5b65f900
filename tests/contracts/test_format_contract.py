"""What every format promises: the same documents whatever the format, in order, ids exact."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.ipc as ipc
import pyarrow.parquet as pq
import pytest

from embedding_core.recipe import SourceSpec
from embedding_core.records import Document, SourceFile
from embedding_core.sources import discover, read_documents
from embedding_core.sources.formats.format import Fields, Record
from embedding_core.sources.formats.recognition import recognised, suffixes
from tests.compressed import COMPRESSORS
from tests.s3 import S3Server

RECORDS = [
    {"id": "it's; --", "title": "one", "text": "first\r\n text with 中文 🙂", "year": 1},
    {"id": "../x", "title": "two", "text": "  second  ", "year": None},
    {"id": "\u0065\u0301", "title": "three", "text": 'third, "quoted"', "year": 3},
    {"id": "007", "title": "", "text": "fourth", "year": 4},
]
LINES = "".join(json.dumps(record) + "\n" for record in RECORDS)


def as_table() -> pa.Table:
    return pa.Table.from_pylist(RECORDS)


def as_parquet(path: Path) -> None:
    pq.write_table(as_table(), path, row_group_size=2)


def as_feather(path: Path) -> None:
    feather.write_feather(as_table(), path, chunksize=2, compression="zstd")


def as_arrow_stream(path: Path) -> None:
    with ipc.new_stream(path, as_table().schema) as writer:
        writer.write_table(as_table(), max_chunksize=2)


def delimited(delimiter: str) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(RECORDS[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(RECORDS)
    return text.getvalue().encode()


TEXTS = {
    ".jsonl": LINES.encode(),
    ".ndjson": LINES.encode(),
    ".json": json.dumps(RECORDS, indent=2).encode(),
    ".csv": delimited(","),
    ".tsv": delimited("\t"),
    ".tab": delimited("\t"),
}
BINARIES: dict[str, Callable[[Path], None]] = {
    ".parquet": as_parquet,
    ".arrow": as_feather,
    ".feather": as_feather,
    ".ipc": as_feather,
    ".arrows": as_arrow_stream,
}
COMPRESSED = {suffix + end: text for suffix, text in TEXTS.items() for end in COMPRESSORS}
FORMATS = [*TEXTS, *COMPRESSED, *BINARIES]
DOCUMENTS = dict.fromkeys([".txt", ".md", ".markdown", ".html", ".htm", ".xhtml"], b"two\nlines")
"""Formats without records: a file is one document."""
LAID_OUT = (".pdf", ".docx", ".pptx")
"""Formats of pages, which ``tests/sources/test_prose.py`` makes files of."""
SPLIT = (".jsonl", ".ndjson", ".parquet", ".arrow", ".feather", ".ipc")
"""Formats whose files can be read in spans."""
WHOLE_FILE = [suffix + end for suffix in DOCUMENTS for end in ["", *COMPRESSORS]]


def write(path: Path) -> None:
    """The records, or a document, in the format of the path's name."""
    suffix = path.name.removeprefix("a")
    plain = suffix.removesuffix(next((end for end in COMPRESSORS if suffix.endswith(end)), ""))
    if suffix in BINARIES:
        BINARIES[suffix](path)
        return
    text = (TEXTS | DOCUMENTS)[plain]
    path.write_bytes(text if plain == suffix else COMPRESSORS[suffix.removeprefix(plain)](text))


def spec_for(uri: str, server: S3Server | None = None) -> SourceSpec:
    return SourceSpec(
        uri=uri,
        include=("**/*",),
        id="id",
        text="{title}: {text}",
        metadata={"year": "int"},
        **({"storage": server.storage} if server else {}),
    )


def documents(spec: SourceSpec) -> list[Document]:
    (file,) = discover(spec).files
    entries = list(read_documents(file, spec))
    assert all(isinstance(entry, Document) for entry in entries)
    return [entry for entry in entries if isinstance(entry, Document)]


def test_every_registered_format_is_in_this_contract() -> None:
    assert sorted(suffixes()) == sorted([*FORMATS, *WHOLE_FILE, *LAID_OUT])


@pytest.mark.parametrize("suffix", FORMATS)
def test_read_documents_exact_texts_ids_and_types_in_file_order(
    tmp_path: Path, suffix: str
) -> None:
    write(tmp_path / f"a{suffix}")
    assert documents(spec_for(str(tmp_path))) == [
        Document(
            doc_id=str(record["id"]),
            position=position,
            text=f"{record['title']}: {record['text']}",
            metadata={"year": record["year"]},
        )
        for position, record in enumerate(RECORDS)
    ]


@pytest.mark.parametrize("suffix", FORMATS)
def test_read_documents_from_s3_are_those_from_disk(
    tmp_path: Path, s3: S3Server, suffix: str
) -> None:
    path = tmp_path / f"a{suffix}"
    write(path)
    bucket = s3.new_bucket()
    s3.put(bucket, f"in/a{suffix}", path.read_bytes())
    remote = documents(spec_for(f"s3://{bucket}/in", s3))
    assert remote == documents(spec_for(str(tmp_path)))


@pytest.mark.parametrize("suffix", [*FORMATS, *WHOLE_FILE, *LAID_OUT])
def test_discover_same_content_same_fingerprint_other_content_another(
    tmp_path: Path, suffix: str
) -> None:
    def fingerprint(folder: str, content: bytes) -> SourceFile:
        path = tmp_path / folder / f"a{suffix}"
        path.parent.mkdir()
        path.write_bytes(content)
        (file,) = discover(spec_for(str(path.parent))).files
        return file

    first, same, other = (
        fingerprint("first", b"content"),
        fingerprint("same", b"content"),
        fingerprint("other", b"Content"),
    )
    assert first.fingerprint == same.fingerprint != other.fingerprint


def stored(path: Path) -> tuple[io.FileIO, SourceFile]:
    return path.open("rb", buffering=0), SourceFile(str(path), "", path.stat().st_size)


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("target_bytes", [1, 60, 1_000_000])
def test_spans_hold_every_record_once_at_its_position(
    tmp_path: Path, suffix: str, target_bytes: int
) -> None:
    path, fields = tmp_path / f"a{suffix}", Fields(("id", "text"), ("year",))
    write(path)
    stream, file = stored(path)
    with stream:
        spans = recognised(stream, file, spec_for(str(path))).spans(file, target_bytes)
    assert bool(spans) == (suffix in SPLIT)
    records = []
    for span in spans or [None]:
        stream, file = stored(path)
        with stream:
            source = recognised(stream, file, spec_for(str(path)))
            records += list(source.format.records(source.stream, file, fields, span))
    assert all(isinstance(record, Record) for record in records)
    assert [record.position for record in records] == list(range(len(RECORDS)))
    assert [record.fields["id"] for record in records if isinstance(record, Record)] == [
        record["id"] for record in RECORDS
    ]


@pytest.mark.parametrize("suffix", [*FORMATS, *WHOLE_FILE])
def test_bytes_per_record_times_the_records_is_about_the_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    write(path)
    n_records = 1 if suffix in WHOLE_FILE else len(RECORDS)
    stream, file = stored(path)
    with stream:
        each = recognised(stream, file, spec_for(str(path))).bytes_per_record(file)
    assert each is not None
    assert each * n_records == pytest.approx(file.size_bytes, rel=0.5)  # a look, not a count
