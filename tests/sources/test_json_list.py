"""JSON files that are no JSON lines: lists, lists inside objects, objects in a row."""

from __future__ import annotations

import json
import tracemalloc
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedding_core.errors import RejectedInput
from embedding_core.recipe import SourceSpec
from embedding_core.records import Document, Reject, SourceFile
from embedding_core.sources import discover, read_documents
from embedding_core.sources.formats import json_list

Items = list[Document | Reject]


def read(path: Path, **mapping: object) -> Items:
    spec = SourceSpec(uri=str(path), **mapping)  # type: ignore[arg-type]
    (file,) = discover(spec).files
    return list(read_documents(file, spec))


def read_bytes(folder: Path, data: bytes, **mapping: object) -> Items:
    (folder / "a.json").write_bytes(data)
    return read(folder / "a.json", **mapping)


def documents(items: Items) -> list[tuple[str, str]]:
    return [(item.doc_id, item.text) for item in items if isinstance(item, Document)]


def rejects(items: Items) -> list[tuple[int | None, str]]:
    return [(item.position, item.reason) for item in items if isinstance(item, Reject)]


GOOD = b'{"text": "good"}'
TWO = [{"text": "a"}, {"text": "b"}]


@pytest.mark.parametrize(
    "data",
    [
        json.dumps(TWO),
        json.dumps(TWO, indent=4),
        "\ufeff " + json.dumps(TWO) + "\r\n\t ",
        "\n".join(map(json.dumps, TWO)),
        "".join(map(json.dumps, TWO)),
        "\n".join(json.dumps(record, indent=1) for record in TWO),
    ],
)
def test_lists_and_objects_in_a_row_are_records(tmp_path: Path, data: str) -> None:
    assert documents(read_bytes(tmp_path, data.encode())) == [("0", "a"), ("1", "b")]


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a"])
@pytest.mark.parametrize(
    "data",
    [
        '{"text": "a"}\n{\n "text": "b"\n}\n',
        '{"text": "a"} {"text": "b"}\n',
        '{"text": "a"}{"text":\n"b"}',
        '{\n "text": "a"}\n{"text": "b"}\n',
    ],
)
def test_objects_in_a_row_are_no_json_lines_whatever_the_name_says(
    tmp_path: Path, name: str, data: str
) -> None:
    (tmp_path / name).write_text(data)
    assert documents(read(tmp_path / name)) == [("0", "a"), ("1", "b")]
    (tmp_path / name).write_text(data + data * 3_000)
    assert len(documents(read(tmp_path / name))) == 6_002


def test_object_over_several_lines_late_in_json_lines_is_rejected_with_what_to_do(
    tmp_path: Path,
) -> None:
    lines = b'{"text": "good"}\n' * 10_000
    items = read_bytes(tmp_path, lines + b'{\n  "text": "late"\n}\n')
    assert len(documents(items)) == 10_000
    late = [item for item in items if isinstance(item, Reject)]
    assert [item.position for item in late] == [10_000, 10_001, 10_002]
    assert all("set source.formats.json" not in item.detail for item in late)
    assert all("set source.format to json" in item.detail for item in late)


@pytest.mark.slow
def test_record_of_very_many_values_is_rejected_in_bounded_memory(tmp_path: Path) -> None:
    wide = b'{"text": "x", "n": [' + b"[]," * 9_000_000 + b"1]}"
    tracemalloc.start()
    (tmp_path / "a.jsonl").write_bytes(GOOD + b"\n" + wide + b"\n" + GOOD)
    items = read(tmp_path / "a.jsonl")
    assert documents(items) == [("0", "good"), ("2", "good")]
    assert rejects(items) == [(1, "too_many_values")]
    with pytest.raises(RejectedInput, match=r"too_many_values: .*1,000,000 values"):
        read_bytes(tmp_path, b"[" + wide + b"]")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 350_000_000


@pytest.mark.parametrize("text", [b",[{" * 3_000_000, b'\\"[,' * 3_000_000, b"[" * 5_000_000])
def test_marks_in_a_long_text_are_no_values(tmp_path: Path, text: bytes) -> None:
    record = b'{"text": "' + text + b'"}'
    assert len(documents(read_bytes(tmp_path, b"[" + record + b"," + GOOD + b"]"))) == 2
    (tmp_path / "a.jsonl").write_bytes(record + b"\n" + GOOD)
    assert len(documents(read(tmp_path / "a.jsonl"))) == 2


@pytest.mark.parametrize("data", ["[]", " [ ] ", "", " \n"])
def test_nothing_is_no_records(tmp_path: Path, data: str) -> None:
    assert read_bytes(tmp_path, data.encode()) == []


def test_items_names_the_list_inside_the_file(tmp_path: Path) -> None:
    data = json.dumps({"version": [1, {"rows": []}], "data": {"n": 2, "rows": TWO}, "end": None})
    options = {"json": {"items": "data.rows"}}
    assert documents(read_bytes(tmp_path, data.encode(), formats=options)) == [
        ("0", "a"), ("1", "b"),
    ]  # fmt: skip
    with pytest.raises(RejectedInput, match="missing_field: no 'lines' on the path"):
        read_bytes(tmp_path, data.encode(), formats={"json": {"items": "data.lines"}})
    with pytest.raises(RejectedInput, match=r"malformed_json: expected '\['"):
        read_bytes(tmp_path, data.encode(), formats={"json": {"items": "data"}})


@pytest.mark.parametrize("window", [1, 7, 1_000])
@settings(max_examples=40)
@given(
    records=st.lists(
        st.dictionaries(
            st.text(st.characters(exclude_categories=["Cs"])),
            st.recursive(
                st.none()
                | st.booleans()
                | st.floats(allow_nan=False, allow_infinity=False)
                | st.integers(-(2**70), 2**70)
                | st.text(st.characters(exclude_categories=["Cs"])),
                st.lists,
                max_leaves=3,
            ),
            max_size=3,
        ),
        max_size=4,
    ),
    indent=st.sampled_from([None, 0, 3]),
)
def test_records_come_through_whatever_part_of_the_file_is_read_at_a_time(
    window: int, records: list[dict[str, object]], indent: int | None
) -> None:
    file = SourceFile("/x.json", "digest", 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_list, "READ_BYTES", window)
        data = json.dumps(records, indent=indent, ensure_ascii=False).encode()
        got = list(json_list.JsonList().records(BytesIO(data), file, fields=()))
    assert [dict(record.fields) for record in got] == records  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("item", "reason", "words"),
    [
        (b'{"text": NaN}', "malformed_json", "NaN"),
        (b'{"text": "x", "text": "y"}', "malformed_json", "key 'text' twice"),
        (b'{"text": "x", "n": ' + b"9" * 5000 + b"}", "malformed_json", "digits"),
        (b"[1, [2]]", "not_an_object", "got list"),
        (b'"text"', "not_an_object", "got string"),
        (b"null", "not_an_object", "got null"),
        (b'{"body": "x"}', "missing_field", "the fields are 'body'"),
        (b'{"text": "caf\xe9"}', "invalid_utf8", "0xe9 at character 14"),
        (b'{"text": "x\\ud800y"}', "lone_surrogate", "U+D800"),
        (b'{"text": "x\\u0000y"}', "nul_character", "NUL"),
        (b'{"text": {"de": "x"}}', "wrong_type", "got object"),
    ],
)
@pytest.mark.parametrize("window", [3, 1_000])
def test_bad_record_is_rejected_and_its_neighbours_are_read(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    window: int,
    item: bytes,
    reason: str,
    words: str,
) -> None:
    monkeypatch.setattr(json_list, "READ_BYTES", window)
    items = read_bytes(tmp_path, b"[" + GOOD + b", " + item + b",\n" + GOOD + b"]")
    assert documents(items) == [("0", "good"), ("2", "good")]
    assert rejects(items) == [(1, reason)]
    assert words in items[1].detail  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("data", "reason", "words"),
    [
        (b"[" + GOOD + b", {" + GOOD, "malformed_json", "at character"),
        (b"[" + GOOD + b", " + GOOD, "malformed_json", "expected ',', got 'the end'"),
        (b"[" + GOOD + b", ", "malformed_json", "Expecting value"),
        (b"[" + GOOD + b' {"text": "no comma"}]', "malformed_json", "expected ','"),
        (b"[" + GOOD + b"] tail", "malformed_json", "expected the end, got 't'"),
        (b"[" + GOOD + b"][" + GOOD + b"]", "malformed_json", "expected the end"),
        (b"[" + GOOD + b', {"text": "cut', "malformed_json", "Unterminated string"),
        (b"[" + GOOD + b', {"n": ' + b"[" * 100_000, "too_deep", "at character 20"),
        (b"{\n " + GOOD, "malformed_json", "at character"),
    ],
)
def test_file_whose_records_cannot_be_told_apart_is_rejected_whole(
    tmp_path: Path, data: bytes, reason: str, words: str
) -> None:
    with pytest.raises(RejectedInput) as caught:
        read_bytes(tmp_path, data)
    assert caught.value.reason == reason
    assert words in caught.value.detail


@pytest.mark.slow
def test_long_lists_and_long_values_are_read_in_bounded_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    with path.open("wb") as file:
        file.write(b"[" + GOOD)
        for _ in range(20_000):
            file.write(b',{"text": "' + b"x" * 900 + b'"}')
        file.write(b"]")
    spec = SourceSpec(uri=str(path))
    (listed,) = discover(spec).files
    tracemalloc.start()
    assert sum(1 for _ in read_documents(listed, spec)) == 20_001
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 12_000_000
    (item,) = read_bytes(tmp_path, b'[{"text": "' + b"x" * 10_000_000 + b'"}]')
    assert isinstance(item, Document) and len(item.text) == 10_000_000
    monkeypatch.setattr(json_list, "MOST_CHARACTERS", 3_000_000)
    with pytest.raises(RejectedInput, match="text_too_long"):
        read_bytes(tmp_path, b'[{"text": "' + b"x" * 10_000_000 + b'"}]')
