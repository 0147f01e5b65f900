"""HTML, PDF, DOCX and PPTX: text and fields, and files that have none or cannot be read."""

from __future__ import annotations

import io
import logging
import struct
import sys
import threading
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import docx
import fpdf
import pptx
import pytest
from pptx.util import Inches

from embedding_core.errors import RejectedInput
from embedding_core.recipe import SourceSpec
from embedding_core.records import Document, Reject
from embedding_core.sources import discover, read_documents
from embedding_core.sources.formats.prose import html, office, pdf
from embedding_core.store import retry

Items = list[Document | Reject]
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63f8cfc000"
    "0003010100c9fe92ef0000000049454e44ae426082"
)


def read(path: Path, **mapping: object) -> Items:
    spec = SourceSpec(uri=str(path), **mapping)  # type: ignore[arg-type]
    (file,) = discover(spec).files
    return list(read_documents(file, spec))


def read_bytes(folder: Path, name: str, data: bytes, **mapping: object) -> Items:
    (folder / name).write_bytes(data)
    return read(folder / name, **mapping)


def documents(items: Items) -> list[tuple[str, str]]:
    return [(item.doc_id, item.text) for item in items if isinstance(item, Document)]


def rejects(items: Items) -> list[tuple[int | None, str]]:
    return [(item.position, item.reason) for item in items if isinstance(item, Reject)]


# HTML

PAGE = b"""<!DOCTYPE html><html lang="en"><head><title>Leaves</title>
<meta name="author" content="Ann Lee"><meta name="description" content="On leaves">
<meta property="article:published_time" content="2024-05-01T10:00:00Z"></head><body>
<nav><a href="/">Home</a> <a href="/shop">Shop</a></nav>
<div class="cookie-banner">We use cookies. Accept all of them.</div>
<article><h1>Leaves</h1>
<p>Leaves turn light into sugar, and they do so all day long while the sun is out.</p>
<h2>Why</h2><p>Because caf\xc3\xa9s need sugar, and nobody has found a better way to it yet.</p>
<ul><li>first</li><li>second</li></ul></article>
<footer>Copyright 2024. All rights reserved.</footer></body></html>"""


def test_page_is_its_main_text_as_markdown_with_its_metadata(tmp_path: Path) -> None:
    types = {"title": "string", "author": "string", "date": "timestamp", "url": "string"}
    (item,) = read_bytes(tmp_path, "a.html", PAGE, metadata=types, id="name")
    assert isinstance(item, Document)
    assert item.doc_id == "a.html"
    assert item.text.startswith("# Leaves\n\nLeaves turn light")
    assert "## Why\n\nBecause cafés" in item.text and "- first\n- second" in item.text
    assert not any(word in item.text for word in ("Home", "Shop", "cookies", "Copyright"))
    assert (item.metadata["title"], item.metadata["author"]) == ("Leaves", "Ann Lee")
    assert str(item.metadata["date"]) == "2024-05-01 00:00:00+00:00"
    assert item.metadata["url"] is None
    assert read(tmp_path / "a.html", metadata=types, id="name") == [item]


@pytest.mark.parametrize(
    "page",
    [
        b"<html><body></body></html>",
        b"<html><body><nav><a href=/></a></nav><img src=x></body></html>",
        b"<html><head><script>render()</script></head><body><div id=app></div></body></html>",
        b"\xff\xfe\x00\x01 no markup",
    ],
)
def test_page_without_content_is_rejected_not_an_empty_text(tmp_path: Path, page: bytes) -> None:
    assert rejects(read_bytes(tmp_path, "a.html", page)) == [(0, "no_text")]


def test_page_of_no_bytes_has_no_document_and_a_huge_one_is_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read_bytes(tmp_path, "a.html", b" \n") == []
    monkeypatch.setattr(html, "MAX_HTML_BYTES", 100)
    with pytest.raises(RejectedInput, match="text_too_long"):
        read_bytes(tmp_path, "a.html", PAGE)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "said"),
    [
        (b"<p " + b" ".join(b"a%d" % n for n in range(1_000_000)) + b">", "1,000 attributes"),
        (
            b"<html><body><p " + b" ".join(b"a%d='>'" % n for n in range(1_001)) + b">",
            "1,000 attributes",
        ),
        (b"<p>words " * 1_500_000, "500,000 elements"),
        (b"<di\x01v " + b" ".join(b"a%d" % n for n in range(1_001)) + b">", "1,000 attributes"),
    ],
)
def test_page_of_more_markup_than_can_be_read_is_rejected_at_the_limit(
    tmp_path: Path, page: bytes, said: str
) -> None:
    with pytest.raises(RejectedInput, match=f"too_many_values: more than {said}"):
        read_bytes(tmp_path, "a.html", page)


def test_page_nested_deeper_than_the_parser_goes_is_rejected_not_half_read(tmp_path: Path) -> None:
    words = b"<p>" + b"Leaves turn light into sugar all day long. " * 3 + b"</p>"
    within = b"<html><body>" + b"<div>" * 250 + words
    assert len(documents(read_bytes(tmp_path, "a.html", within))) == 1
    with pytest.raises(RejectedInput, match="too_deep: more than 256 elements"):
        read_bytes(tmp_path, "a.html", words + b"<div>" * 100_000 + words)


# PDF


def made_pdf(*pages: str | None, password: str | None = None) -> bytes:
    """A page per text; None is a page with a picture alone."""
    document = fpdf.FPDF()
    document.set_title("Report")
    document.set_author("Ann Lee")
    if password is not None:
        document.set_encryption(owner_password="owner", user_password=password)
    for text in pages:
        document.add_page()
        document.set_font("helvetica", size=12)
        if text is None:
            document.rect(10, 10, 50, 50, style="F")
        elif text:
            document.multi_cell(0, text=text)
    return bytes(document.output())


def test_pages_are_records_with_their_number_and_the_files_metadata(tmp_path: Path) -> None:
    types = {"page": "int", "pages": "int", "title": "string", "author": "string"}
    items = read_bytes(
        tmp_path, "a.pdf", made_pdf("First page.\nA line.", "", "Third page."), metadata=types
    )
    assert documents(items) == [("0", "First page.\nA line."), ("2", "Third page.")]
    about = {"pages": 3, "title": "Report", "author": "Ann Lee"}
    assert [item.metadata for item in items if isinstance(item, Document)] == [
        about | {"page": 1}, about | {"page": 3},
    ]  # fmt: skip


def test_pages_without_a_text_layer_are_rejected_by_their_number(tmp_path: Path) -> None:
    items = read_bytes(tmp_path, "a.pdf", made_pdf("First page.", None, "Third page."))
    assert documents(items) == [("0", "First page."), ("2", "Third page.")]
    assert rejects(items) == [(1, "no_text")]
    assert "page 2 has pictures and no text layer; run OCR" in items[1].detail  # type: ignore[union-attr]


def test_file_as_one_record_has_all_pages_and_lists_those_without_text(tmp_path: Path) -> None:
    options = {"pdf": {"record": "file"}}
    data = made_pdf("First page.", None, "", "Fourth page.")
    items = read_bytes(tmp_path, "a.pdf", data, formats=options)
    assert documents(items) == [("0", "First page.\n\nFourth page.")]
    assert rejects(items) == [(1, "no_text")]
    with pytest.raises(RejectedInput, match=r"no_text: .*run OCR"):
        read_bytes(tmp_path, "a.pdf", made_pdf(None, None), formats=options)


@pytest.mark.parametrize(
    ("data", "reason", "words"),
    [
        (made_pdf("secret", password="x"), "encrypted", "save it without one"),
        (made_pdf("", ""), "no_text", "none of its pages"),
        (b"%PDF-1.7\nnonsense\n%%EOF", "corrupt_pdf", "Data format"),
        (made_pdf(*["text"] * 20)[:-200], "corrupt_pdf", "cut off"),
        (made_pdf("text")[:900], "corrupt_pdf", "cut off"),
        (b"", "corrupt_pdf", "cut off"),
    ],
)
def test_pdf_that_cannot_be_read_is_rejected_whole(
    tmp_path: Path, data: bytes, reason: str, words: str
) -> None:
    with pytest.raises(RejectedInput, match=f"{reason}: .*{words}"):
        read_bytes(tmp_path, "a.pdf", data)


def test_pdf_above_the_limits_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = made_pdf("word " * 100, "word " * 100)
    monkeypatch.setattr(pdf, "MAX_TEXT_BYTES", 700)
    with pytest.raises(RejectedInput, match=r"text_too_long: .*page 2"):
        read_bytes(tmp_path, "a.pdf", data)
    monkeypatch.setattr(pdf, "MAX_PDF_BYTES", 700)
    with pytest.raises(RejectedInput, match="text_too_long: the file"):
        read_bytes(tmp_path, "a.pdf", data)


def test_pdf_of_very_many_pages_is_rejected_at_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pdf, "MOST_PAGES", 2)
    assert len(documents(read_bytes(tmp_path, "a.pdf", made_pdf("one", "two")))) == 2
    with pytest.raises(RejectedInput, match="too_many_values: the file has 3 pages"):
        read_bytes(tmp_path, "a.pdf", made_pdf("one", "two", "three"))


# Office


def made_docx(*paragraphs: str) -> bytes:
    document, data = docx.Document(), io.BytesIO()
    document.core_properties.title, document.core_properties.author = "Report", "Ann Lee"
    if paragraphs:
        document.add_heading("Heading.", level=2)
    for paragraph in paragraphs:
        document.add_paragraph(paragraph)
    if paragraphs:
        document.add_paragraph("item", style="List Bullet")
        table = document.add_table(rows=2, cols=2)
        for number, cell in enumerate(cell for row in table.rows for cell in row.cells):
            cell.text = f"cell {number}"
        document.add_picture(io.BytesIO(PIXEL))
    document.save(data)
    return data.getvalue()


@pytest.mark.slow
def test_docx_is_markdown_in_order_with_its_properties(tmp_path: Path) -> None:
    types = {"title": "string", "author": "string", "created": "timestamp"}
    (item,) = read_bytes(tmp_path, "a.docx", made_docx("First. <b>", "Second."), metadata=types)
    assert isinstance(item, Document)
    heading, first, second, *rest = item.text.split("\n\n")
    assert (heading, second) == ("## Heading.", "Second.")
    assert "First." in first and "base64" not in item.text
    assert "item" in rest[0] and "cell 3" in rest[-1]
    assert (item.metadata["title"], item.metadata["author"]) == ("Report", "Ann Lee")
    assert item.metadata["created"] is not None


def made_pptx(*slides: tuple[str, str, bool]) -> bytes:
    """A slide per title, text and whether it has a picture."""
    presentation, data = pptx.Presentation(), io.BytesIO()
    for title, text, is_pictured in slides:
        slide = presentation.slides.add_slide(presentation.slide_layouts[5 if title else 6])
        if title:
            slide.shapes.title.text = title
            slide.notes_slide.notes_text_frame.text = f"say {title}"
        if text:
            box = slide.shapes.add_textbox(0, 0, Inches(1), Inches(1))
            box.text_frame.text = text
            group = slide.shapes.add_group_shape()
            group.shapes.add_textbox(0, 0, 1, 1).text_frame.text = "in a group"
            table = slide.shapes.add_table(1, 2, 0, 0, 1, 1).table
            table.cell(0, 0).text, table.cell(0, 1).text = "a", "b"
        if is_pictured:
            slide.shapes.add_picture(io.BytesIO(PIXEL), 0, 0)
    presentation.save(data)
    return data.getvalue()


DECK = made_pptx(("One", "body\vline", False), ("", "", False), ("", "", True), ("Four", "", True))


def test_slides_are_records_with_title_notes_and_number(tmp_path: Path) -> None:
    types = {"title": "string", "notes": "string", "slide": "int", "slides": "int"}
    items = read_bytes(tmp_path, "a.pptx", DECK, metadata=types)
    assert documents(items) == [
        ("0", "One\n\nbody\nline\n\nin a group\n\na | b"), ("3", "Four"),
    ]  # fmt: skip
    assert rejects(items) == [(2, "no_text")]
    first = items[0]
    assert isinstance(first, Document)
    assert first.metadata == {"title": "One", "notes": "say One", "slide": 1, "slides": 4}


def test_deck_as_one_record_has_all_slides_and_lists_those_without_text(tmp_path: Path) -> None:
    items = read_bytes(tmp_path, "a.pptx", DECK, formats={"pptx": {"record": "file"}})
    ((doc_id, text),) = documents(items)
    assert doc_id == "0" and text.startswith("One\n\nbody") and text.endswith("\n\nFour")
    assert rejects(items) == [(2, "no_text")]


def zipped(parts: dict[str, bytes]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return data.getvalue()


def with_part(data: bytes, name: str, content: bytes) -> bytes:
    """The archive with another part of this name, or with it besides."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        parts = {part: archive.read(part) for part in archive.namelist()}
    return zipped(parts | {name: content})


def flipped(data: bytes) -> bytes:
    at = data.index(b"word/document.xml") + 200
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


def with_bytes(data: bytes, field: int, *values: int) -> bytes:
    """The archive with other bytes at an offset in the directory entry of its first part."""
    at = data.index(b"PK\x01\x02") + field
    return data[:at] + bytes(values) + data[at + len(values) :]


OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600
WHOLE = made_docx("text " * 500)


@pytest.mark.parametrize("name", ["a.docx", "a.pptx"])
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (OLE, "encrypted"),
        (zipped({}), "corrupt_office"),
        (zipped({"other.xml": b"<a/>"}), "corrupt_office"),
        (zipped({"word/document.xml": b"<a"}), "corrupt_office"),
        (zipped({"ppt/presentation.xml": b"<a"}), "corrupt_office"),
        (b"", "corrupt_office"),
        (WHOLE[:-30], "corrupt_office"),
        (flipped(WHOLE), "corrupt_office"),
        (b"words", "corrupt_office"),
        (with_bytes(WHOLE, 8, 1), "encrypted"),
        (with_bytes(with_bytes(WHOLE, 8, 0, 8), 46, 0xFF), "corrupt_office"),  # name not UTF-8
        (with_bytes(WHOLE, 10, 14), "corrupt_office"),  # deflated data that says LZMA
        (with_bytes(WHOLE, 10, 12), "corrupt_office"),  # bzip2
        (with_bytes(WHOLE, 10, 99), "corrupt_office"),  # no method that there is
    ],
)
def test_office_file_that_cannot_be_read_is_rejected_whole(
    tmp_path: Path, name: str, data: bytes, reason: str
) -> None:
    with pytest.raises(RejectedInput) as caught:
        read_bytes(tmp_path, name, data)
    assert caught.value.reason == reason and caught.value.detail


@pytest.mark.slow
def test_office_file_without_text_is_rejected(tmp_path: Path) -> None:
    assert rejects(read_bytes(tmp_path, "a.docx", made_docx())) == [(0, "no_text")]
    with pytest.raises(RejectedInput, match="no_text"):
        read_bytes(tmp_path, "a.pptx", made_pptx(("", "", False)))


@pytest.mark.slow
def test_zip_bomb_is_rejected_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(office, "MAX_XML_BYTES", 1_000_000)
    data = zipped({"word/document.xml": b"<a>" + b" " * 50_000_000 + b"</a>"})
    with pytest.raises(RejectedInput, match="text_too_long: its XML has 5"):
        read_bytes(tmp_path, "a.docx", data)
    monkeypatch.setattr(office, "MAX_PART_BYTES", 1_000_000)
    data = zipped({"ppt/presentation.xml": b"<a/>", "ppt/media/a.png": b" " * 50_000_000})
    with pytest.raises(RejectedInput, match="text_too_long: what is in it has 5"):
        read_bytes(tmp_path, "a.pptx", data)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("name", ["docProps/core.xml", "word/document.xml", "word/other.bin"])
def test_entities_that_multiply_are_rejected(tmp_path: Path, encoding: str, name: str) -> None:
    levels = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 20}">' for n in range(1, 9))
    xml = f'<!-- <a> --><!DOCTYPE a [<!ENTITY e0 "words ">{levels}]><a>&e8;</a>'
    data = with_part(WHOLE, name, xml.encode(encoding))
    with pytest.raises(RejectedInput, match=f"corrupt_office: '{name}' in it has a document type"):
        read_bytes(tmp_path, "a.docx", data)


@pytest.mark.parametrize("name", ["a.docx", "a.pptx"])
def test_office_file_of_more_elements_than_can_be_read_is_rejected(
    tmp_path: Path, name: str
) -> None:
    part = {"a.docx": "word/document.xml", "a.pptx": "ppt/slides/slide1.xml"}[name]
    data = with_part({"a.docx": WHOLE, "a.pptx": DECK}[name], part, b"<a>" + b"<p/>" * 600_000)
    with pytest.raises(RejectedInput, match=r"too_many_values: its XML has 6.*limit is 500,000"):
        read_bytes(tmp_path, name, data)


@pytest.mark.parametrize("name", ["a.docx", "a.pptx"])
def test_archive_of_very_many_parts_is_not_listed(tmp_path: Path, name: str) -> None:
    n_parts = 200_000
    directory = b"PK\x01\x02".ljust(50, b"\0") * n_parts
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, len(directory), 4, 0)
    tracemalloc.start()
    with pytest.raises(RejectedInput, match="too_many_values: the list of what is in it"):
        read_bytes(tmp_path, name, b"PK\x03\x04" + directory + end)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 50_000_000


def test_table_of_ten_thousand_rows_is_read(tmp_path: Path) -> None:
    cell = b"<a:txBody><a:bodyPr/><a:p><a:r><a:t>x</a:t></a:r></a:p></a:txBody>"
    row = b"<a:tr h='1'><a:tc>" + cell + b"</a:tc></a:tr>"
    presentation, made = pptx.Presentation(), io.BytesIO()
    slide = presentation.slides.add_slide(presentation.slide_layouts[6])
    slide.shapes.add_table(1, 1, 0, 0, 1, 1)
    presentation.save(made)
    with zipfile.ZipFile(made) as archive:
        xml = archive.read("ppt/slides/slide1.xml")
    data = with_part(
        made.getvalue(),
        "ppt/slides/slide1.xml",
        xml.replace(b"</a:tbl>", row * 10_000 + b"</a:tbl>"),
    )
    ((_, text),) = documents(read_bytes(tmp_path, "a.pptx", data))
    assert text.count("x") == 10_000


def test_long_wait_for_a_library_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    is_said, said = threading.Event(), list[str]()

    class Said(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())
            is_said.set()

    def slow(*_: object, **__: object) -> None:
        assert is_said.wait(60)

    monkeypatch.setattr(retry, "SILENT_SECONDS", 0.001)
    monkeypatch.setattr("mammoth.convert_to_html", slow)
    monkeypatch.setattr(logging.getLogger("embedding_core.store.retry"), "handlers", [Said()])
    with pytest.raises(RejectedInput):
        read_bytes(tmp_path, "a.docx", WHOLE)
    assert said[0].startswith(f"still trying to read {tmp_path / 'a.docx'}, for")


# All


MADE: dict[str, Callable[[], bytes]] = {
    "html": lambda: PAGE,
    "pdf": lambda: made_pdf("text"),
    "docx": lambda: WHOLE,
    "pptx": lambda: DECK,
}
MODULES = {"html": "trafilatura", "pdf": "pypdfium2", "docx": "mammoth", "pptx": "pptx"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", MADE)
@pytest.mark.parametrize("name", ["a", "a.bin", "a.parquet", "a.jpg"])
def test_file_named_otherwise_is_read_as_what_it_is(tmp_path: Path, kind: str, name: str) -> None:
    items = read_bytes(tmp_path, name, MADE[kind]())
    assert documents(items) == documents(read_bytes(tmp_path, f"a.{kind}", MADE[kind]()))
    assert documents(items)


@pytest.mark.parametrize("kind", MADE)
def test_missing_library_is_named_with_the_line_that_installs_it(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, MODULES[kind], None)
    extra = {"docx": "office", "pptx": "office"}.get(kind, kind)
    words = rf"missing_library: .*{MODULES[kind]}.*pip install 'embedlake\[{extra}\]'"
    with pytest.raises(RejectedInput, match=words):
        read_bytes(tmp_path, f"a.{kind}", MADE[kind]())
