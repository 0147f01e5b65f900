"""Good files of every format, small: the same bytes each time."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any

import docx
import fpdf
import pptx
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.ipc as ipc
import pyarrow.parquet as pq

from experiments.fuzz.shapes import CODECS, unzipped, zipped

RECORDS: Sequence[Mapping[str, Any]] = (
    {"id": "it's; --", "title": "one", "text": "first\r\n text with 中文 🙂", "year": 1},
    {"id": "../x", "title": "two", "text": "  second  ", "year": None},
    {"id": "e\u0301", "title": "three", "text": 'third, "quoted"', "year": 3},
    {"id": "007", "title": "", "text": "fourth", "year": 4},
)
NESTED: Sequence[Mapping[str, Any]] = (
    {
        "id": 1,
        "title": "t",
        "text": "a",
        "year": 1,
        "meta": {"by": {"name": "x"}, "tags": [1, "y"]},
    },
    {"id": 2.0, "title": "t", "text": "b", "year": 9, "meta": None, "more": [[], {}, ""]},
)
MARKDOWN = (
    b"---\ntitle: Leaves\ndate: 2024-05-01\ntags: [a, b]\nyear: 7\n---\n# Leaves\n\nLight.\n",
    b'+++\ntitle = "Leaves"\nyear = 7\ndate = 2024-05-01\n[a.b]\nc = [1, 2]\n+++\n# Leaves\n',
    b"# No front matter\n\n```py\nx = 1\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n",
)
PAGE = """<!DOCTYPE html><html lang="en"><head><title>Leaves</title>
<meta name="author" content="Ann Lee"><meta property="article:published_time" content="2024-05-01">
</head><body><nav><a href="/">Home</a></nav><article><h1>Leaves</h1>
<p>Leaves turn light into sugar, and they do so all day long while the sun is out.</p>
<table><tr><td>caf\u00e9s &amp; &#x1F642;</td><td>2</td></tr></table>
<p>Because trees need sugar, and nobody has met a better way to it yet, they go on.</p>
<ul><li>first</li><li>second</li></ul></article></body></html>""".encode()


DOCX_PARTS = (
    "[Content_Types].xml",
    "_rels/.rels",
    "word/document.xml",
    "word/_rels/document.xml.rels",
    "word/numbering.xml",
    "docProps/core.xml",
)
"""The parts that are read; a document of Word has a hundred times as many bytes beside them."""
STYLES = b"""<?xml version="1.0"?>
<w:styles xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main">
<w:style w:type="paragraph" w:styleId="Heading1"><w:name w:val="heading 1"/></w:style>
</w:styles>"""


@cache
def good_files() -> Mapping[str, Sequence[bytes]]:
    """Files by format; those that are compressed by the end of their names."""
    lines = _lines(RECORDS)
    texts = {
        "jsonl": [lines, b"\xef\xbb\xbf" + _lines(NESTED)],
        "json": [
            json.dumps(RECORDS, indent=1).encode(),
            json.dumps(NESTED).encode(),
            b"\n".join(json.dumps(record, indent=2).encode() for record in NESTED),
        ],
        "csv": [_delimited(","), _delimited("\t"), _delimited(";")],
        "markdown": MARKDOWN,
        "html": [PAGE],
        "text": [PAGE, "plain text \u4e2d".encode(), b"\xef\xbb\xbfwords\r\n"],
    }
    return texts | {
        "parquet": _parquet_files(),
        "arrow": _arrow_files(),
        "pdf": _pdfs(),
        "docx": [_docx()],
        "pptx": [_pptx()],
        **{
            suffix: [compress(lines), compress(b"{}\n")] for suffix, (compress, _) in CODECS.items()
        },
    }


def _lines(records: Sequence[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def _delimited(delimiter: str) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(RECORDS[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(RECORDS)
    return text.getvalue().encode()


def _tables() -> list[pa.Table]:
    nested = [{**record, "meta": {"by": {"name": "x"}, "tags": ["y"]}} for record in RECORDS]
    typed = pa.table(
        {
            "id": pa.array(["a", "b"]).dictionary_encode(),
            "title": pa.array(["t", None]),
            "text": pa.array(["first", "second"], pa.large_string()),
            "year": pa.array([1, 2], pa.int8()),
            "at": pa.array([1, 2], pa.timestamp("ns", "Europe/Berlin")),
            "price": pa.array([1, 2], pa.decimal128(9, 2)),
        }
    )
    return [pa.Table.from_pylist(list(RECORDS)), pa.Table.from_pylist(nested), typed]


def _parquet_files() -> list[bytes]:
    files = []
    for table, compression in zip(_tables(), ("snappy", "none", "zstd"), strict=True):
        target = pa.BufferOutputStream()
        pq.write_table(table, target, row_group_size=2, compression=compression)
        files.append(bytes(target.getvalue()))
    return files


def _arrow_files() -> list[bytes]:
    files = []
    for table, compression in zip(_tables(), ("zstd", "uncompressed", "lz4"), strict=True):
        target = pa.BufferOutputStream()
        feather.write_feather(table, target, compression, chunksize=2)
        files.append(bytes(target.getvalue()))
        target = pa.BufferOutputStream()
        with ipc.new_stream(target, table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
        files.append(bytes(target.getvalue()))
    return files


def _pdfs() -> list[bytes]:
    files = []
    for compressed in (True, False):
        document = fpdf.FPDF()
        document.set_creation_date(datetime(2024, 1, 1, tzinfo=UTC))
        document.set_compression(compressed)
        document.set_title("Report")
        for number in range(3):
            document.add_page()
            document.set_font("helvetica", size=12)
            document.multi_cell(0, 8, f"Page {number} speaks of leaves.\nLight is sugar.")
        files.append(bytes(document.output()))
    return files


def _docx() -> bytes:
    document = docx.Document()
    document.add_heading("Leaves", 1)
    document.add_paragraph("Leaves turn light into sugar.")
    document.add_paragraph("first", style="List Bullet")
    document.add_table(2, 2).cell(0, 0).text = "cell"
    parts = unzipped(_repacked(document)) or {}
    return zipped({name: parts[name] for name in DOCX_PARTS} | {"word/styles.xml": STYLES})


def _pptx() -> bytes:
    presentation = pptx.Presentation()
    slide = presentation.slides.add_slide(presentation.slide_layouts[1])
    slide.shapes.title.text = "Leaves"
    slide.placeholders[1].text_frame.text = "Leaves turn light into sugar."
    slide.shapes.add_table(2, 2, 0, 0, 100, 100).table.cell(0, 0).text = "cell"
    slide.notes_slide.notes_text_frame.text = "notes"
    for layout in list(presentation.slide_layouts):
        if not layout.used_by_slides:
            presentation.slide_layouts.remove(layout)
    return _repacked(presentation)


def _repacked(document: Any) -> bytes:
    """The file without the time of its making."""
    target = io.BytesIO()
    document.save(target)
    return zipped(unzipped(target.getvalue()) or {})
