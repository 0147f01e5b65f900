"""Maps: functions of the user's that make documents of records, and whatever they do wrong."""

from __future__ import annotations

import itertools
import logging
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedding_core.errors import UsageError
from embedding_core.recipe import SourceSpec
from embedding_core.recipe.mapping.function import MapSpec
from embedding_core.records import Document
from embedding_core.sources import discover
from tests.sources.record_files import NESTED, Items, read, read_records, rejects, texts

NUMBERS = itertools.count()


@pytest.fixture(autouse=True)
def own_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))


def function(folder: Path, body: str, name: str = "rows") -> dict[str, Any]:
    """The map section of a function in a module of its own."""
    module = f"made_for_a_test_{next(NUMBERS)}"
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    (folder / f"{module}.py").write_text(f"import re, sys, time\n\ndef {name}(record):\n{lines}\n")
    return {"function": f"{module}:{name}", "folder": str(folder)}


def mapped(folder: Path, body: str, *records: Any, format: str = "jsonl", **mapping: Any) -> Items:
    options = {
        name: mapping.pop(name) for name in ("seconds", "documents", "fields") if name in mapping
    }
    section = function(folder, body) | options
    return read_records(folder, *records, format=format, map=section, **mapping)


def numbered(items: Items) -> list[tuple[str, str]]:
    return [(item.doc_id, item.text) for item in items if isinstance(item, Document)]


@pytest.mark.parametrize("format", NESTED)
def test_function_is_given_all_fields_of_a_record_in_every_format(
    tmp_path: Path, format: str
) -> None:
    record = {"a": "x", "n": 3, "list": ["y", "z"], "object": {"b": True}}
    body = "return {'text': repr(sorted(record.items())), 'year': record['n']}"
    (item,) = mapped(tmp_path, body, record, format=format, metadata={"year": "int"})
    assert isinstance(item, Document)
    assert item.text == repr(sorted(record.items())) and item.metadata == {"year": 3}


def test_cells_of_csv_are_texts_and_read_as_declared_afterwards(tmp_path: Path) -> None:
    section = function(tmp_path, "return record | {'text': record['a'] + record['n']}")
    (tmp_path / "a.csv").write_text("a,n\nx,007\n")
    (item,) = read(tmp_path / "a.csv", map=section, metadata={"n": "int"})
    assert isinstance(item, Document) and (item.text, item.metadata) == ("x007", {"n": 7})


@pytest.mark.parametrize(
    "body",
    [
        "return [{'text': word} for word in record['text'].split()]",
        "return tuple({'text': word} for word in record['text'].split())",
        "for word in record['text'].split():\n    yield {'text': word}",
    ],
)
def test_several_documents_have_numbered_ids_and_a_dict_the_position(
    tmp_path: Path, body: str
) -> None:
    items = mapped(tmp_path, body, {"text": "a b"}, {"text": "c"})
    assert numbered(items) == [("0.0", "a"), ("0.1", "b"), ("1.0", "c")]
    items = mapped(tmp_path, "return record", {"text": "a b"}, {"text": "c"})
    assert numbered(items) == [("0", "a b"), ("1", "c")]


def test_declared_ids_are_the_function_s_and_those_that_repeat_are_rejected(tmp_path: Path) -> None:
    body = "return [{'id': i, 'text': 'x'} for i in record['ids']]"
    items = mapped(tmp_path, body, {"ids": ["a", "b"]}, {"ids": ["b", "c"]}, id="id")
    assert numbered(items) == [("a", "x"), ("b", "x"), ("c", "x")]
    assert [(position, reason) for position, reason, _ in rejects(items)] == [(1, "duplicate_id")]


@pytest.mark.parametrize("output", ["None", "[]", "iter(())"])
def test_record_without_a_document_is_listed_as_such(tmp_path: Path, output: str) -> None:
    items = mapped(
        tmp_path, f"return {output} if record['n'] else record", {"n": 1}, {"n": 0, "text": "x"}
    )
    assert numbered(items) == [("1", "x")]
    ((position, reason, detail),) = rejects(items)
    assert (position, reason) == (0, "no_document") and "gave no document" in detail


def test_documents_are_mapped_as_records_are(tmp_path: Path) -> None:
    body = "return {'turns': record['log'], 'meta': {'tags': ['x']}}"
    chat = [{"role": "user", "content": "P"}, {"role": "assistant", "content": "R"}]
    (item,) = mapped(
        tmp_path,
        body,
        {"log": chat},
        format="parquet",
        conversation="turns",
        text="{prompt} {response} {note|-}",
        metadata={"tag": {"field": "meta.tags[0]", "type": "string"}},
    )
    assert isinstance(item, Document) and (item.text, item.metadata) == ("P R -", {"tag": "x"})


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("raise ValueError('bad year')", "raised ValueError: bad year (made_for_a_test_"),
        ("raise KeyError", "raised KeyError: KeyError, without a message"),
        ("return record['nothing']", "raised KeyError: 'nothing'"),
        ("raise ValueError('a\\0b\\ud800')", "raised ValueError: a\\0b\\ud800"),
        ("raise ValueError('x' * 10**6)", "raised ValueError: xxx"),
        ("class Odd(Exception):\n    def __str__(self):\n        raise OSError\nraise Odd",
         "raised Odd: a message that cannot be written"),
        ("sys.exit(3)", "raised SystemExit: 3"),
        ("raise GeneratorExit", "raised GeneratorExit"),
        ("import asyncio\nraise asyncio.CancelledError('late')", "raised CancelledError: late"),
        ("return rows(record)", "raised RecursionError"),
        ("yield {'text': 'x'}\nraise ValueError('late')", "raised ValueError: late"),
        ("return 'text'", "gave string 'text'; return a dict, a list or generator of"),
        ("return 3", "gave int 3"),
        ("return {'x'}", "gave set {'x'}"),
        ("return [record, 'x']", "gave string 'x' as item 1"),
        ("return [record, None]", "gave null None as item 1"),
        ("return {1: 'x'}", "gave the key 1; a document's keys are strings"),
        ("return {'text': 'x' * (64 * 1024 * 1024 + 1)}", "more than 67,108,864 characters"),
        ("while True:\n    yield {'text': 'x'}", "more than 1,000 documents"),
    ],
)  # fmt: skip
def test_function_that_fails_costs_its_record_and_says_why(
    tmp_path: Path, body: str, words: str
) -> None:
    branch = "\n".join(f"    {line}" for line in body.splitlines())
    is_generator = "yield" in body
    other = "yield record" if is_generator else "return record"
    items = mapped(tmp_path, f"if record['bad']:\n{branch}\nelse:\n    {other}",
                   {"bad": True, "text": "x"}, {"bad": False, "text": "good"})  # fmt: skip
    ((position, reason, detail),) = rejects(items)
    assert (position, reason) == (0, "map_failed")
    assert detail.startswith("source.map 'made_for_a_test_") and words in detail
    assert len(detail) < 600
    detail.encode()
    assert [text for _, text in numbered(items)] == ["good"]


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("{'text': 3.5}", "wrong_type"),
        ("{'text': None}", "missing_field"),
        ("{'text': float('nan')}", "missing_field"),
        ("{}", "missing_field"),
        ("{'text': ' '}", "empty_text"),
        ("{'text': 'a\\0'}", "nul_character"),
        ("{'text': 'a\\ud800'}", "lone_surrogate"),
        ("{'text': object()}", "wrong_type"),
        ("{'text': 'x', 'n': float('inf')}", "wrong_type"),
        ("{'text': 'x', 'n': 10**400}", "wrong_type"),
        ("{'text': 'x', 'n': [1]}", "wrong_type"),
    ],
)
def test_document_that_breaks_a_rule_is_rejected_as_a_record_is(
    tmp_path: Path, output: str, reason: str
) -> None:
    items = mapped(tmp_path, f"return {output}", {"a": 1}, metadata={"n": "int"})
    assert [rejected for _, rejected, _ in rejects(items)] == [reason]


@pytest.mark.parametrize(
    "loop",
    [
        "while True: pass",
        "time.sleep(1000)",
        "re.match('(a+)+b', 'a' * 50)",
        "while True:\n    try:\n        time.sleep(1000)\n    except Exception:\n        pass",
        "yield from iter(lambda: time.sleep(1000), 0)",
    ],
)
def test_function_that_loops_costs_its_record(tmp_path: Path, loop: str) -> None:
    branch = "\n".join(f"    {line}" for line in loop.splitlines())
    give = "yield record" if "yield" in loop else "return record"
    body = f"if record['bad']:\n{branch}\n{give}"
    records = ({"bad": True, "text": "x"}, {"bad": False, "text": "good"})
    items = mapped(tmp_path, body, *records, seconds=0.2)
    ((position, reason, detail),) = rejects(items)
    assert (position, reason) == (0, "map_failed") and "took more than 0.2 s" in detail
    assert [text for _, text in numbered(items)] == ["good"]


@pytest.mark.slow
def test_function_that_loops_for_record_after_record_ends_the_run(tmp_path: Path) -> None:
    body = "while record['bad']: pass\nreturn record"
    bad, good = {"bad": True, "text": "x"}, {"bad": False, "text": "x"}
    items = mapped(tmp_path, body, *[bad] * 4, good, *[bad] * 4, seconds=0.05)
    assert len(rejects(items)) == 8
    with pytest.raises(UsageError, match=r"took more than 0.05 s for 5 records in a row"):
        mapped(tmp_path, body, *[bad] * 5, seconds=0.05)


def test_time_limit_leaves_another_timer_and_its_handler_as_they_were(tmp_path: Path) -> None:
    timer, handler = signal.getitimer(signal.ITIMER_REAL), signal.getsignal(signal.SIGALRM)
    try:
        signal.setitimer(signal.ITIMER_REAL, 500.0)
        assert texts(mapped(tmp_path, "return record", {"text": "x"})) == ["x"]
        left, _ = signal.getitimer(signal.ITIMER_REAL)
        assert 200 < left <= 500
        assert signal.getsignal(signal.SIGALRM) == handler
    finally:
        signal.setitimer(signal.ITIMER_REAL, *timer)


@pytest.mark.slow
def test_function_that_catches_everything_is_named_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    body = (
        "for _ in range(2):\n    try:\n        time.sleep(1000)\n"
        "    except BaseException:\n        pass\nreturn record"
    )
    with caplog.at_level(logging.WARNING):
        items = mapped(tmp_path, body, {"text": "x"}, seconds=0.1)
    assert texts(items) == ["x"]
    assert "goes on after its time limit of 0.1 s" in caplog.text and "record 0" in caplog.text


def test_time_limit_holds_in_another_thread(tmp_path: Path) -> None:
    results: list[Items] = []
    body = "if record['bad']:\n    while True: pass\nreturn record"

    def work() -> None:
        records = ({"bad": True}, {"bad": False, "text": "good"})
        results.append(mapped(tmp_path, body, *records, seconds=0.2))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert rejects(results[0])[0][:2] == (0, "map_failed")
    assert numbered(results[0]) == [("1", "good")]


def test_flaws_of_the_format_do_not_reach_the_function(tmp_path: Path) -> None:
    section = function(tmp_path, "return record")
    (tmp_path / "a.jsonl").write_text('{\n{"text": "x"}\n')
    items = read(tmp_path / "a.jsonl", map=section)
    assert [reason for _, reason, _ in rejects(items)] == ["malformed_json"]
    assert numbered(items) == [("1", "x")]


def test_named_fields_alone_are_given_and_read(tmp_path: Path) -> None:
    record = {"a": "x", "b": "y", "c": "z"}
    for format in NESTED:
        items = mapped(tmp_path, "return {'text': ''.join(sorted(record))}", record,
                       format=format, fields=["a", "c", "missing"])  # fmt: skip
        assert texts(items) == ["ac"]


def test_value_that_cannot_be_read_rejects_its_record_unless_others_are_named(
    tmp_path: Path,
) -> None:
    broken = pa.array([b"x", b"\xff"], pa.binary()).view(pa.string())
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["one", "two"], "note": broken}), path)
    section = function(tmp_path, "return record")
    items = read(path, map=section)
    assert numbered(items) == [("0", "one")]
    ((position, reason, detail),) = rejects(items)
    assert (position, reason) == (1, "invalid_utf8")
    assert "field 'note'" in detail and "source.map.fields" in detail
    assert texts(read(path, map=section | {"fields": ["text"]})) == ["one", "two"]


def test_function_is_given_what_a_page_says_of_itself(tmp_path: Path) -> None:
    paragraphs = "<p>A paragraph of a page that is long enough to be its main text.</p>" * 5
    page = f"<html><head><title>A title</title></head><body>{paragraphs}</body></html>"
    (tmp_path / "a.html").write_text(page)
    section = function(tmp_path, "return {'text': record['title']}")
    assert texts(read(tmp_path / "a.html", map=section)) == ["A title"]


def test_function_may_change_its_record(tmp_path: Path) -> None:
    body = "record.pop('a')\nrecord['text'] = 'x'\nreturn record"
    assert texts(mapped(tmp_path, body, {"a": 1}, {"a": 2})) == ["x", "x"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no_such_module_anywhere:rows", "No module named 'no_such_module_anywhere', neither in"),
        ("no_such_package.module:rows", "No module named 'no_such_package', neither in"),
        ("sys:exit", "has no source file"),
        ("json:rows", "has no such function"),
        ("json:__doc__", "has no function there"),
    ],
)
def test_function_that_is_not_there_is_a_usage_error_before_any_record(
    tmp_path: Path, name: str, words: str
) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "x"}\n')
    spec = SourceSpec.model_validate(
        {"uri": str(tmp_path), "map": {"function": name, "folder": str(tmp_path)}}
    )
    with pytest.raises(UsageError, match=r"source\.map") as caught:
        discover(spec)
    assert name in str(caught.value) and words in str(caught.value)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("def rows(:", "raised SyntaxError"),
        ("raise ValueError('no')", "raised ValueError: no"),
        ("import sys; sys.exit(1)", "raised SystemExit: 1"),
        ("import no_such_module_anywhere", "raised ModuleNotFoundError"),
        ("async def rows(record): ...", "it is async"),
        ("async def rows(record): yield", "it is async"),
    ],
)
def test_module_that_cannot_be_imported_is_a_usage_error(
    tmp_path: Path, source: str, words: str
) -> None:
    section = function(tmp_path, "return record")
    module = section["function"].partition(":")[0]
    (tmp_path / f"{module}.py").write_text(source)
    with pytest.raises(UsageError, match=words):
        MapSpec(**section).load()
    assert module not in sys.modules or "async" in source


@pytest.mark.parametrize(
    "name", ["rows", "a:b:c", "a.b", "a:", ":b", "a/b:c", "__main__:rows", "a:b.c"]
)
def test_name_of_no_function_is_refused_by_the_recipe(name: str) -> None:
    with pytest.raises(ValueError, match=r"write package\.module:function"):
        SourceSpec.model_validate({"uri": "/data", "map": name})


def test_module_of_a_package_may_import_its_neighbours(tmp_path: Path) -> None:
    package = tmp_path / "package_for_a_test"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "words.py").write_text("WORD = 'neighbour'\n")
    (package / "rows.py").write_text(
        "from __future__ import annotations\nfrom dataclasses import asdict, dataclass\n"
        "from .words import WORD\n\n@dataclass\nclass Row:\n    text: str\n\n"
        "def rows(record):\n    return asdict(Row(WORD))\n"
    )
    section = {"function": "package_for_a_test.rows:rows", "folder": str(tmp_path)}
    assert texts(read_records(tmp_path, {"a": 1}, map=section)) == ["neighbour"]


def test_changed_source_is_another_digest_and_runs_at_once(tmp_path: Path) -> None:
    section = function(tmp_path, "return {'text': 'old'}")
    spec = MapSpec(**section)
    path = tmp_path / f"{section['function'].partition(':')[0]}.py"
    assert spec.load()({}) == {"text": "old"}
    before = spec.hashed()
    path.write_text(path.read_text().replace("old", "new"))  # the same size, the same second
    assert spec.load()({}) == {"text": "new"}
    assert spec.hashed() != before
    assert spec.load() is spec.load()


def test_modules_of_one_name_in_two_folders_are_two(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "twin_for_a_test.py").write_text(
            f"def rows(record):\n    return {{'text': {name!r}}}\n"
        )
    specs = [
        MapSpec(function="twin_for_a_test:rows", folder=str(tmp_path / name))
        for name in ("one", "two")
    ]
    assert [spec.load()({}) for spec in specs] == [{"text": "one"}, {"text": "two"}]


@pytest.mark.parametrize(
    "value",
    ["{1: 'a', 'b': 2}", "10**5000", "[10**5000]", "{'a', 'b'}", "[{'a', 'b'}]", "object()", "own"],
)
def test_values_that_no_file_holds_make_no_group_and_no_reject(tmp_path: Path, value: str) -> None:
    body = f"own = []\nown.append(own)\nreturn {{'text': 'x', 'g': {value}}}"
    sample = {"rows": 1, "per": "g", "top": True}
    (item,) = mapped(tmp_path, body, {"a": 1}, sample=sample)
    assert isinstance(item, Document) and item.group is None
