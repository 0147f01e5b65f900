"""Records that are mapped many at a time: the same documents and rejects as one by one."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc as ipc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedding_core.recipe import SourceSpec
from embedding_core.records import Document, SourceFile
from embedding_core.sources import discover, read_documents
from embedding_core.sources.formats.jsonl import JSON_LINES
from embedding_core.sources.formats.strict_json import STRICT, objects_of
from embedding_core.sources.mapping.mapper import RecordMapper

TYPES = {"s": "string", "i": "int", "b": "bool", "f": "float"}


def write(path: Path, records: list[dict[str, Any]]) -> None:
    if path.suffix == ".jsonl":
        lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        path.write_bytes("".join(lines).encode("utf-8", "surrogatepass"))
        return
    table = pa.Table.from_pylist(records)
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    else:
        with ipc.new_file(path, table.schema) as writer:
            writer.write_table(table)


def one_by_one(path: Path, spec: SourceSpec) -> Iterator[object]:
    """What each record becomes that is mapped by itself."""
    from embedding_core.sources.formats.columnar.arrow import ARROW
    from embedding_core.sources.formats.columnar.parquet import PARQUET

    (file,) = discover(spec).files
    mapper = RecordMapper(spec, file.uri)
    format = {".jsonl": JSON_LINES, ".parquet": PARQUET, ".arrow": ARROW}[path.suffix]
    with path.open("rb", buffering=0) as stream:
        for record in format.records(stream, file, mapper.fields):
            yield mapper.map(record)


GOOD: dict[str, Any] = {
    "id": "1",
    "t": "ä title",
    "x": "words",
    "s": "a",
    "i": 1,
    "b": True,
    "f": 0.5,
}
ODD: list[dict[str, Any]] = [
    {},
    {"id": ""}, {"id": None}, {"id": "2"}, {"id": "nul\0"},
    {"t": ""}, {"t": None}, {"x": " \u2003", "t": " "}, {"x": "nul\0"},
    {"s": None}, {"s": "nul\0"}, {"i": None}, {"b": None}, {"f": None}, {"f": float("inf")},
]  # fmt: skip
ODD_JSON: list[dict[str, Any]] = [
    {"id": 7}, {"id": 2**70}, {"id": True}, {"id": 1.5}, {"t": 3}, {"t": [1]}, {"x": {"y": 1}},
    {"i": 2**70}, {"i": True}, {"i": 3.0}, {"i": "3"}, {"b": 1}, {"s": 1}, {"f": 3}, {"f": "x"},
    {"x": "half \ud800"}, {"s": "half \udfff"}, {"more": {"id": [{"id": 1}]}}, {"x": 'a ": b :'},
]  # fmt: skip


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet", ".arrow"])
@pytest.mark.parametrize("has_id", [True, False])
@pytest.mark.parametrize("folder", ["a", "s=of the folder"])
def test_batch_with_an_odd_record_gives_what_its_records_give(
    tmp_path: Path, suffix: str, has_id: bool, folder: str
) -> None:
    mapping = {"text": "{t}: {x}", "metadata": TYPES} | ({"id": "id"} if has_id else {})
    path = tmp_path / folder / f"a{suffix}"
    path.parent.mkdir()
    for odd in ODD + (ODD_JSON if suffix == ".jsonl" else []):
        records = [GOOD | {"id": str(number)} for number in range(5)]
        write(path, [*records[:3], GOOD | {"id": "other"} | odd, *records[3:]])
        spec = SourceSpec.model_validate({"uri": str(path), **mapping})
        (file,) = discover(spec).files
        assert list(read_documents(file, spec)) == list(one_by_one(path, spec)), odd


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet", ".arrow"])
def test_field_that_no_record_has_is_null_or_the_folder_s(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "s=of the folder" / f"a{suffix}"
    path.parent.mkdir()
    write(path, [{"text": "x"}] * 1_000)
    spec = SourceSpec.model_validate({"uri": str(path), "metadata": {"s": "string", "i": "int"}})
    (file,) = discover(spec).files
    items = list(read_documents(file, spec))
    assert items == list(one_by_one(path, spec))
    assert items[-1] == Document("999", 999, "x", {"s": "of the folder", "i": None})


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet", ".arrow"])
def test_names_in_quotes_are_the_fields_of_the_names(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    write(path, [{"an id": f"i{n}", "dc:title": "words", "a.b": n} for n in range(100)])
    metadata = {
        "t": {"field": "['dc:title']", "type": "string"},
        "n": {"field": '["a.b"]', "type": "float"},
    }
    quoted = {"id": "['an id']", "text": "{['dc:title']}", "metadata": metadata}
    spec = SourceSpec.model_validate({"uri": str(path), **quoted})
    (file,) = discover(spec).files
    items = list(read_documents(file, spec))
    assert items == list(one_by_one(path, spec))
    last = items[-1]
    assert isinstance(last, Document)
    assert (last.doc_id, last.text, last.metadata) == ("i99", "words", {"t": "words", "n": 99.0})


def test_blank_and_bad_lines_among_many_leave_every_record_at_its_position() -> None:
    lines = [b'{"n": %d}\n' % n for n in range(500)]
    lines[70] = lines[71] = lines[300] = b" \n"
    lines[130] = b"not JSON\n"
    fields = RecordMapper(SourceSpec(uri="x", text="n"), "x").fields
    file = SourceFile("x", "", 0)
    rows = JSON_LINES.rows(io.BytesIO(b"".join(lines)), file, fields)  # type: ignore[attr-defined]
    singles = [
        record
        for batch in rows
        for record in (batch.records() if hasattr(batch, "records") else [batch])
    ]
    assert singles == list(JSON_LINES.records(io.BytesIO(b"".join(lines)), file, fields))  # type: ignore[arg-type]
    assert len(singles) == 497


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.sampled_from('ab":\\{}[], \n\0é\ud800') | st.characters(), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3)
    ),
    max_leaves=6,
)


@pytest.mark.slow
@settings(max_examples=300)
@given(
    objects=st.lists(st.dictionaries(st.sampled_from(["a", "b", "é", 'q"']), JSON), min_size=1),
    separators=st.sampled_from([(",", ":"), (", ", ": "), (" ,", " : "), (",", "\t:")]),
    is_ascii=st.booleans(),
    cut=st.tuples(st.integers(0, 300), st.integers(0, 3)),
    doubled=st.booleans(),
)
def test_objects_of_lines_are_those_of_the_strict_parser_or_none(
    objects: list[dict[str, Any]],
    separators: tuple[str, str],
    is_ascii: bool,
    cut: tuple[int, int],
    doubled: bool,
) -> None:
    texts = [json.dumps(o, ensure_ascii=is_ascii, separators=separators) for o in objects]
    if doubled:
        texts[0] = texts[0][:-1] + ("," if objects[0] else "") + '"a" : 1, "\\u0061":2}'
    at, n_characters = cut
    texts[0] = texts[0][:at] + texts[0][at + n_characters :]
    lines = [text.encode("utf-8", "surrogatepass") for text in texts]
    quick = objects_of(lines)
    if quick is not None:
        assert repr(quick) == repr([STRICT.decode(line.decode()) for line in lines])


@pytest.mark.parametrize(
    "line",
    [
        b'{"a": 1, "a" :2, "b": 3}', b'{"a": 1, "\\u0061": 2}', b'{"x": {"b": 1, "b": 2}}',
        b'{"x": [{"b": 1,\t"b"\t:2}]}', b'{"x": NaN}', b'{"x": ' + b"9" * 5_000 + b"}", b"[1]",
        b'{"x": ' + b"[" * 2_000 + b"]" * 2_000 + b"}", b'{"x": "\\ud800"}', b'{"x": "\xff"}',
    ],
)  # fmt: skip
def test_lines_that_only_the_strict_parser_can_judge_are_left_to_it(line: bytes) -> None:
    assert objects_of([b'{"good": 1}', line]) is None


def test_usual_lines_are_read_the_quick_way() -> None:
    lines = [b'{"id": 1, "text": "a: b, {c}", "tags": ["x"], "meta": {"n": 1.5}}\r\n'] * 3
    assert objects_of(lines) == [STRICT.decode(lines[0].decode())] * 3
