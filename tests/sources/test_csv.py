"""CSV and TSV: cells come through exactly, a bad row costs one row."""

from __future__ import annotations

import csv
import io
import tracemalloc
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding_core.errors import RejectedInput
from embedding_core.recipe import SourceSpec
from embedding_core.records import Document, Reject
from embedding_core.sources import discover, read_documents
from embedding_core.sources.formats import delimited

Items = list[Document | Reject]


def read(path: Path, **mapping: object) -> Items:
    spec = SourceSpec(uri=str(path), **mapping)  # type: ignore[arg-type]
    (file,) = discover(spec).files
    return list(read_documents(file, spec))


def read_bytes(folder: Path, data: bytes, name: str = "a.csv", **mapping: object) -> Items:
    (folder / name).write_bytes(data)
    return read(folder / name, **mapping)


def documents(items: Items) -> list[tuple[str, str]]:
    return [(item.doc_id, item.text) for item in items if isinstance(item, Document)]


def rejects(items: Items) -> list[tuple[int | None, str]]:
    return [(item.position, item.reason) for item in items if isinstance(item, Reject)]


def test_ids_quotes_line_ends_and_spaces_come_through_exactly(tmp_path: Path) -> None:
    data = (
        b'\xef\xbb\xbfid,"te""xt",other\r\n'
        b'007,"two\nlines, ""quoted""",x\r\n'
        b"1e3, padded ,\r\n"
        b'+1,"a\r\nb",'
    )
    items = read_bytes(tmp_path, data, id="id", text='te"xt')
    assert documents(items) == [
        ("007", 'two\nlines, "quoted"'), ("1e3", " padded "), ("+1", "a\r\nb"),
    ]  # fmt: skip


CELLS = st.lists(
    st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=2, max_size=2), max_size=9
)


@given(rows=CELLS, delimiter=st.sampled_from(",;\t|"))
def test_every_cell_that_can_be_written_comes_through(
    rows: list[list[str]], delimiter: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerows([["id", "text"], *rows])
    path = tmp_path_factory.getbasetemp() / "exact.csv"
    path.write_bytes(text.getvalue().encode())
    options = {"csv": {"delimiter": delimiter}}
    items = read(path, id="id", text="id: {text}", formats=options)
    kept = {item.position: item for item in items if isinstance(item, Document)}
    assert [item.position for item in items] == list(range(len(rows)))
    for position, (doc_id, cell) in enumerate(rows):
        if "\0" not in doc_id + cell and doc_id and doc_id not in {r[0] for r in rows[:position]}:
            assert (kept[position].doc_id, kept[position].text) == (doc_id, f"id: {cell}")


@pytest.mark.parametrize(
    ("row", "reason", "words"),
    [
        (b"1,two,three", "ragged_row", "the row has 3 cells, the header 2"),
        (b"1", "ragged_row", "the row has 1 cell, the header 2"),
        (b'1,"quoted" then not', "malformed_row", "line 3"),
        (b"1,Mac\r2,line\r3,ends", "malformed_row", "end lines with a line feed"),
        (b'1,"ends \r in \r quotes"x', "malformed_row", "write a quote in a quoted cell twice"),
        (b"1,caf\xe9", "invalid_utf8", "line 3: byte 0xe9 at 6 is not utf-8; set source.formats"),
        (b"1,", "empty_text", "empty"),
        (b"1,a\0b", "nul_character", "NUL"),
    ],
)
def test_bad_row_is_rejected_and_its_neighbours_are_read(
    tmp_path: Path, row: bytes, reason: str, words: str
) -> None:
    items = read_bytes(tmp_path, b"id,text\n0,good\n" + row + b"\n2,good\n")
    assert documents(items) == [("0", "good"), ("2", "good")]
    assert rejects(items) == [(1, reason)]
    assert words in items[1].detail  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("data", "reason", "words"),
    [
        (
            b"id;text\n1;x\n",
            "missing_column",
            "'id;text'; .*, or set source.formats.csv.delimiter to ';'",
        ),
        (b"id\ttext\n1\tx\n", "missing_column", r"delimiter to '\\t'"),
        (b"id,body\n1,x\n", "missing_column", "the file has 'id', 'body'; correct source.text"),
        (b"x" * 500 + b",a" * 5_000, "missing_column", ", 'a', …; .*source.exclude"),
        (b"text,text\n1,x\n", "duplicate_column", "'text' more than once"),
        (b'id,text\n1,good\n2,"never closed\n3,x\n', "unclosed_quote", "begins at line 3"),
        (b'"id,text\n1,x', "unclosed_quote", "begins at line 1"),
        (b'"id"x,text\n1,x', "malformed_row", "the header"),
    ],
)
def test_file_whose_rows_cannot_be_told_is_rejected_whole(
    tmp_path: Path, data: bytes, reason: str, words: str
) -> None:
    with pytest.raises(RejectedInput, match=f"{reason}: .*{words}") as caught:
        read_bytes(tmp_path, data)
    assert len(caught.value.detail) < 400


def test_file_without_a_row_has_no_documents(tmp_path: Path) -> None:
    assert read_bytes(tmp_path, b"") == []
    assert read_bytes(tmp_path, b"\n\n") == []
    assert read_bytes(tmp_path, b"id,text\n") == []


def test_options_say_how_the_cells_are_cut_and_called(tmp_path: Path) -> None:
    options = {"csv": {"delimiter": "|", "header": ["id", "text"], "encoding": "latin-1"}}
    items = read_bytes(tmp_path, b"1|caf\xe9\n\n2|a,b\n", id="id", formats=options)
    assert documents(items) == [("1", "café"), ("2", "a,b")]


def test_declared_types_are_read_from_cells_and_the_wrong_ones_rejected(tmp_path: Path) -> None:
    data = (
        b"text,s,i,f,b,t\n"
        b"x,01,-7,1.50,TRUE,2024-05-01\n"
        b"x,,,,,\n"
        b"x,NA,NA,NA,NA,NA\n"
        b"x,s,seven,1,true,2024-05-01\n"
        b"x,s,7,1,yes,2024-05-01\n"
        b"x,s,7,nan,true,2024-05-01\n"
    )
    types = {"s": "string", "i": "int", "f": "float", "b": "bool", "t": "timestamp"}
    items = read_bytes(tmp_path, data, metadata=types, formats={"csv": {"nulls": ["NA"]}})
    day = datetime(2024, 5, 1, tzinfo=UTC)
    assert [item.metadata for item in items if isinstance(item, Document)] == [
        {"s": "01", "i": -7, "f": 1.5, "b": True, "t": day},
        {"s": "", "i": None, "f": None, "b": None, "t": None},
        {"s": None, "i": None, "f": None, "b": None, "t": None},
    ]
    assert rejects(items) == [(3, "wrong_type"), (4, "wrong_type"), (5, "wrong_type")]
    assert "field 'i': expected int of 64 bits, got string 'seven'" in items[3].detail  # type: ignore[union-attr]


def test_files_of_one_source_may_have_other_columns_and_delimiters(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,year\nx,1\n")
    (tmp_path / "b.tsv").write_text("more\ttext\n,\ty\n")
    (tmp_path / "c.csv").write_text("year,text\nlate,z\n2,\n")
    spec = SourceSpec(uri=str(tmp_path), metadata={"year": "int"})  # type: ignore[dict-item]
    items = [item for file in discover(spec).files for item in read_documents(file, spec)]
    assert [(i.text, i.metadata) for i in items if isinstance(i, Document)] == [
        ("x", {"year": 1}), ("y", {"year": None}),
    ]  # fmt: skip
    assert rejects(items) == [(0, "wrong_type"), (1, "empty_text")]


@pytest.mark.slow
def test_cells_of_ten_megabytes_are_read_and_overlong_rows_skipped_in_bounded_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = b"x" * 10_000_000
    assert len(documents(read_bytes(tmp_path, b"text\n" + long + b'\n"' + long + b'"\n'))) == 2
    monkeypatch.setattr(delimited, "MAX_ROW_BYTES", 1_000_000)
    path = tmp_path / "a.csv"
    path.write_bytes(b"text,n\ngood,1\n" + b"x" * 50_000_000 + b",2\ngood,3\n")
    tracemalloc.start()
    items = read(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert documents(items) == [("0", "good"), ("2", "good")]
    assert rejects(items) == [(1, "line_too_long")]
    assert "50,000,003 bytes" in items[1].detail  # type: ignore[union-attr]
    assert peak < 10_000_000


def test_rows_and_headers_of_very_many_cells_are_not_cut(tmp_path: Path) -> None:
    wide = b"," * 20_000_000
    tracemalloc.start()
    with pytest.raises(RejectedInput, match=r"too_many_values: the header: .*1,000,000 cells"):
        read_bytes(tmp_path, wide + b"\n")
    items = read_bytes(tmp_path, b"text,n\ngood,1\n" + wide + b"\ngood,3\n")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert documents(items) == [("0", "good"), ("2", "good")]
    assert rejects(items) == [(1, "too_many_values")]
    assert peak < 150_000_000


WIDE = b"," * 20


@pytest.mark.parametrize(
    "row",
    [
        WIDE,
        b'"a ""quoted"" cell",' + WIDE,
        b'x"y,' + WIDE,
        b'"",' + WIDE + b'""',
        WIDE + b'"two\nlines"',
        WIDE + b'"three\n,lines\n,"' + WIDE,
        b'"a line\n",' + WIDE,
        b'"a line\n",' + WIDE + b'"open ""\n"',
    ],
)
def test_row_of_too_many_cells_costs_itself_whatever_is_quoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: bytes
) -> None:
    monkeypatch.setattr(delimited, "MOST_CELLS", 10)
    items = read_bytes(tmp_path, b"text,n\ngood,1\n" + row + b"\nlast,3\n")
    assert documents(items) == [("0", "good"), ("2", "last")]
    assert rejects(items) == [(1, "too_many_values")]


def test_file_whose_lines_end_with_carriage_returns_says_so(tmp_path: Path) -> None:
    with pytest.raises(RejectedInput, match=r"malformed_row: the header: .*line feed") as caught:
        read_bytes(tmp_path, b"id,text\r1,one\r2,two\r")
    assert "newline=" not in caught.value.detail  # what Python's parser advises its callers


def test_quote_that_is_not_closed_ends_at_the_limit_of_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delimited, "MAX_ROW_BYTES", 1_000)
    with pytest.raises(RejectedInput, match=r"unclosed_quote: .*line 2 .*1,000 bytes"):
        read_bytes(tmp_path, b'text\n"open\n' + b"line\n" * 1_000)
