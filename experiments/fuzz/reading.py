"""Targets: the reader of each format. A file ends with documents and rejects, or as a reject."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc as ipc
import pyarrow.parquet as pq

from embedding_core.errors import RejectedInput
from embedding_core.recipe import SourceSpec
from embedding_core.records import Document, Reject, SourceFile, Span
from embedding_core.sources import discover, read_documents
from embedding_core.sources.documents import bytes_per_record, raw_records
from embedding_core.sources.formats.format import Fields
from embedding_core.sources.formats.recognition import recognised
from experiments.fuzz.good_files import good_files
from experiments.fuzz.mutation import Shape
from experiments.fuzz.shapes import (
    change_inside,
    change_json,
    change_line,
    change_part,
    change_table,
    nest,
)
from experiments.fuzz.target import Check, Target, Wrong

MOST_DETAIL = 4_000
"""Characters of a reject's detail: a person reads it, a table keeps it."""
SPAN_BYTES = 64
MOST_SPANS = 20
FIELDS = Fields(("id", "text"), ("title",))

Spec = Mapping[str, Any]
OF_RECORDS: Spec = {"id": "id", "text": "{title}: {text}", "metadata": {"year": "int"}}
OF_RECORD_VALUES: Spec = {
    "id": "id",
    "text": "text",
    "title": "title",
    "whitespace": "collapse",
    "normalize": "nfkc",
    "metadata": {"year": {"field": "meta.by.name", "type": "string"}, "at": "timestamp"},
}
OF_NO_IDS: Spec = {"text": "{title|}{text|none}", "metadata": {"year": "float", "x": "bool"}}
OF_PROSE: Spec = {
    "id": "name",
    "metadata": {"title": "string", "year": "int", "date": "timestamp", "author": "string"},
}


@dataclass(frozen=True, slots=True)
class Reader:
    """How a file of a format is read."""

    suffix: str
    specs: Sequence[Spec]
    most_items: Callable[[bytes], int | None]
    """Records that a file of these bytes can hold at most; None where it cannot be told."""

    @contextmanager
    def opened(self, folder: Path) -> Iterator[Check]:
        """See ``Target``."""
        yield partial(self._read, folder / f"a{self.suffix}")

    def _read(self, path: Path, data: bytes) -> str:
        path.write_bytes(data)
        draw = hashlib.sha256(data).digest()
        spec = SourceSpec(uri=str(path), **self.specs[draw[0] % len(self.specs)])
        (file,) = discover(spec).files
        try:
            n_items, ending = _judged(read_documents(file, spec), spec)
        except RejectedInput as error:
            _check_reason(error.reason, error.detail)
            n_items, ending = 0, f"rejected: {error.reason}"
        most = self.most_items(data) if n_items else None
        if most is not None and n_items > most:
            raise Wrong(f"{n_items} documents and rejects; the file can hold {most}")
        if draw[1] % 4 == 0:
            _look(file, spec)
        return ending


def _judged(items: Iterable[Document | Reject], spec: SourceSpec) -> tuple[int, str]:
    """Number of items, and what they are. Raises ``Wrong`` for one that must not be."""
    reasons: set[str] = set()
    ids: set[str] = set()
    last = {Document: -1, Reject: -1}  # a file that is one document may reject pages of it, too
    n_items = 0
    for item in items:
        n_items += 1
        if item.position is None or item.position <= last[type(item)]:
            raise Wrong(f"position {item.position} after {last[type(item)]}")
        last[type(item)] = item.position
        if isinstance(item, Reject):
            reasons.add(item.reason)
            _check_reason(item.reason, item.detail)
            continue
        _check_document(item, spec)
        if item.doc_id in ids:
            raise Wrong(f"the id {item.doc_id!r} twice")
        ids.add(item.doc_id)
    if not reasons:
        return n_items, "read" if ids else "empty"
    return n_items, f"{'some ' if ids else 'all '}{', '.join(sorted(reasons)[:2])}"


def _check_document(document: Document, spec: SourceSpec) -> None:
    texts = [document.text, document.doc_id, document.title]
    texts += [value for value in document.metadata.values() if isinstance(value, str)]
    for text in filter(None, texts):
        text.encode()  # raises for half of a surrogate pair
        if "\0" in text:
            raise Wrong("a NUL character")
    if not document.text.strip() or not document.doc_id:
        raise Wrong("a blank text or id")
    if document.metadata.keys() != spec.metadata.keys():
        raise Wrong(f"metadata has {sorted(document.metadata)}")
    for name, value in document.metadata.items():
        if value is not None and type(value).__name__ not in TYPES[spec.metadata[name].type]:
            raise Wrong(f"metadata {name} is {type(value).__name__}")
    if pa.array([document.text, document.doc_id], pa.string()).null_count:
        raise Wrong("no column can hold it")


TYPES = {
    "string": ("str", "Cell"),
    "int": ("int",),
    "float": ("float", "ColumnFloat", "int"),
    "bool": ("bool",),
    "timestamp": ("datetime",),
}


def _check_reason(reason: str, detail: str) -> None:
    detail.encode()
    if not detail or len(detail) > MOST_DETAIL:
        raise Wrong(f"{reason} has a detail of {len(detail)} characters")


def _look(file: SourceFile, spec: SourceSpec) -> None:
    """What a plan, ``peek`` and the cutting into slices do with a file."""
    with suppress(RejectedInput):
        _, records = raw_records(file, spec)
        deque(records, maxlen=0)
    with suppress(RejectedInput):
        bytes_per_record(file, spec)
    with suppress(RejectedInput):
        for span in _spans(file, spec):
            with Path(file.uri).open("rb", buffering=0) as stream:
                source = recognised(stream, file, spec)
                deque(source.format.records(source.stream, file, FIELDS, span), maxlen=0)


def _spans(file: SourceFile, spec: SourceSpec) -> Sequence[Span]:
    with Path(file.uri).open("rb", buffering=0) as stream:
        return recognised(stream, file, spec).spans(file, SPAN_BYTES)[:MOST_SPANS]


def _characters(data: bytes) -> int:
    return len(data)


def _rows(data: bytes) -> int | None:
    """Rows that Arrow itself reads of a table."""
    try:
        if data[:4] == b"PAR1":
            return int(pq.read_metadata(pa.BufferReader(data)).num_rows)
        if data[:6] == b"ARROW1":
            reader = ipc.open_file(pa.BufferReader(data))
            numbers = range(reader.num_record_batches)
            return sum(int(reader.get_batch(number).num_rows) for number in numbers)
        return sum(int(batch.num_rows) for batch in ipc.open_stream(pa.BufferReader(data)))
    except Exception:
        return None


def _a_document(_data: bytes) -> int:
    return 1


def _untold(_data: bytes) -> None:
    return None


def _target(
    name: str,
    reader: Reader,
    tokens: Sequence[bytes] = (),
    shapes: Sequence[Shape] = (),
    files: str = "",
) -> Target:
    def seeds() -> Sequence[bytes]:
        return good_files()[files or name]

    return Target(name, seeds, reader.opened, tokens, shapes)


RECORD_SPECS = (OF_RECORDS, OF_RECORD_VALUES, OF_NO_IDS)
MARKS = (b'"', b"'", b",", b"\n", b"\r", b"\r\n", b"\0", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf",
         b"\xe2\x80\xa8", b" ", b"\t", b"\\")  # fmt: skip
JSON_TOKENS = (*MARKS, b"{", b"}", b"[", b"]", b":", b"null", b"NaN", b"-Infinity", b"1e999", b"-",
               b"\\ud800", b"\\u0000", b"1" * 5_000, b'"id":1,', b'{"id":1,"text":"x","title":""}',
               b"true", b"//", b"/**/")  # fmt: skip
XML_TOKENS = (b"<", b">", b"</", b"/>", b"<!DOCTYPE x [<!ENTITY a 'b'>]>", b"&a;", b"&#0;",
              b"&#xD800;",
              b"<![CDATA[", b"]]>", b"<!--", b"<?xml version='1.0' encoding='utf-16'?>", b" a='b'",
              b"<w:p>", b"<w:tbl><w:tr>", b"<a:t>", b"xmlns:x='y'", b"<p:sp>")  # fmt: skip
PAGE_TOKENS = (*XML_TOKENS, b"<div>", b"<p>", b"<table><tr><td>", b"<script>", b"<svg>", b"<math>",
               b"<meta charset=utf-7>", b"<base href='//x'>", b"<template>", b"<li>", b"<a href=",
               b"<meta property='article:published_time' content='9999-99-99'>")  # fmt: skip
PDF_TOKENS = (b"obj", b"endobj", b"stream\n", b"endstream", b"/Length 99999999", b"/Kids [1 0 R]",
              b"/Count 2147483647", b"/Filter [/FlateDecode /FlateDecode]", b"/Type /Pages",
              b"xref",
              b"startxref\n0\n%%EOF", b"%%EOF", b"<<", b">>", b"1 0 R", b"/Encrypt 1 0 R",
              b"trailer",
              b"/Contents 3 0 R", b"/Prev 0", b"BT /F1 12 Tf (x) Tj ET", b"/Parent 1 0 R",
              b"/Size 8388607", b"/W [1 9 9]", b"-1")  # fmt: skip
ZIP_TOKENS = (b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06", b"PK\x06\x06", b"word/document.xml",
              b"ppt/presentation.xml", b"../x", b"\0")  # fmt: skip
FRONT_TOKENS = (b"---\n", b"+++\n", b"&a ", b"*a", b"<<: ", b"!!int ''", b"!!binary x", b"? ",
                b"- ",
                b"!!python/object:os.system x", b"2024-13-45", b"1_", b"0x", b"0b_", b"1:99",
                b"[", b"{",
                b"a.b.c = 1\n", b"[[a]]\n", b"1979-05-27T99:00:00", b"'''", b'"""', b"!!set {a}",
                b"!!timestamp x", b"!!float x", b"!!omap [a]", b"!!pairs [a]")  # fmt: skip

JSONL = _target("jsonl", Reader(".jsonl", RECORD_SPECS, _characters), JSON_TOKENS,
                (change_line, nest(b"[", b"]"), nest(b'{"a":', b"}")))  # fmt: skip
JSON = _target(
    "json",
    Reader(".json", (*RECORD_SPECS, {**OF_NO_IDS, "formats": {"json": {"items": "meta.by"}}}),
           _characters),
    JSON_TOKENS,
    (change_json, nest(b"[", b"]"), nest(b'{"a":', b"}")),
)  # fmt: skip
CSV = _target(
    "csv",
    Reader(".csv", (
        OF_RECORDS, OF_NO_IDS, {"text": "text", "metadata": {"year": "int"}},
        {"text": "b", "formats": {"csv": {"header": ["a", "b"], "delimiter": ";"}}},
        {"text": "text", "formats": {"csv": {"encoding": "cp1252", "nulls": ["1"]}}},
    ), _characters),
    (*MARKS, b"id,title,text,year\n", b'""', b';"', b"a,b\n", b"1e5", b"\x80"),
)  # fmt: skip
PARQUET = _target("parquet", Reader(".parquet", RECORD_SPECS, _rows), (b"PAR1",), (change_table,))
ARROW = _target("arrow", Reader(".arrow", RECORD_SPECS, _rows), (b"ARROW1", b"\xff" * 4),
                (change_table,))  # fmt: skip
MARKDOWN = _target("markdown", Reader(".md", (OF_PROSE, {}), _a_document), (*MARKS, *FRONT_TOKENS),
                   (nest(b"[", b"]"), nest(b"> ", b"")))  # fmt: skip
HTML = _target("html", Reader(".html", (OF_PROSE, {}), _a_document), PAGE_TOKENS,
               (nest(b"<div>", b"</div>"), nest(b"<b>", b""), nest(b"<table><tr><td>",
               b"")))  # fmt: skip
PDF = _target("pdf", Reader(".pdf", (
    {"id": "page", "metadata": {"title": "string", "pages": "int"}},
    {"formats": {"pdf": {"record": "file"}}, "metadata": {"author": "string"}},
), _untold), PDF_TOKENS)  # fmt: skip
DOCX = _target("docx", Reader(".docx", (
    {"id": "name", "metadata": {"title": "string", "created": "timestamp"}}, {},
), _a_document), (*XML_TOKENS, *ZIP_TOKENS), (change_part,))  # fmt: skip
PPTX = _target("pptx", Reader(".pptx", (
    {"id": "slide", "metadata": {"title": "string", "notes": "string"}},
    {"formats": {"pptx": {"record": "file"}}},
), _untold), (*XML_TOKENS, *ZIP_TOKENS), (change_part,))  # fmt: skip
TEXT = _target("text", Reader(".txt", (
    {"id": "name"}, {"formats": {"text": {"encoding": "utf-16"}}}, {"whitespace": "collapse"},
    {"formats": {"text": {"encoding": "shift_jis"}}, "normalize": "nfkc"},
), _a_document), MARKS)  # fmt: skip
GZIP = _target("gzip", Reader(".jsonl.gz", RECORD_SPECS, _untold), (b"\x1f\x8b\x08", *JSON_TOKENS),
               (change_inside(".gz"),), ".gz")  # fmt: skip
BZIP2 = _target("bzip2", Reader(".jsonl.bz2", RECORD_SPECS, _untold), (b"BZh91AY&SY", *JSON_TOKENS),
                (change_inside(".bz2"),), ".bz2")  # fmt: skip
ZSTD = _target("zstd", Reader(".jsonl.zst", RECORD_SPECS, _untold),
(b"\x28\xb5\x2f\xfd", *JSON_TOKENS),
               (change_inside(".zst"),), ".zst")  # fmt: skip
