"""Reading BEIR's query and judgement files."""

from __future__ import annotations

import pytest

from embedding_core.errors import UsageError
from embedding_core.quality import read_qrels, read_queries

HEADER = b"query-id\tcorpus-id\tscore\n"


def test_queries_are_read_in_order_with_a_bom_blank_lines_and_other_fields() -> None:
    data = (
        b'\xef\xbb\xbf{"_id": "2", "text": "zwei \xc3\xbc", "metadata": {}}\r\n\n'
        b'{"_id": 1, "text": "one"}'
    )
    assert list(read_queries(data, "q.jsonl").items()) == [("2", "zwei ü"), ("1", "one")]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"{", "not JSON"), (b"[" * 100_000, "not JSON"), (b"[]", "expected an object"),
        (b'{"text": "x"}', "_id"), (b'{"_id": "", "text": "x"}', "_id"),
        (b'{"_id": true, "text": "x"}', "_id"), (b'{"_id": "2"}', "text"),
        (b'{"_id": "2", "text": " "}', "text"), (b'{"_id": "2", "text": 3}', "text"),
        (b'{"_id": "1", "text": "x"}', "used twice"), (b'{"_id": "\xff"}', "not UTF-8"),
    ],
)  # fmt: skip
def test_a_bad_query_line_is_named(line: bytes, problem: str) -> None:
    data = b'{"_id": "1", "text": "x"}\n\n' + line + b"\n"
    with pytest.raises(UsageError, match=rf"q\.jsonl, line 3: .*{problem}"):
        read_queries(data, "q.jsonl")


def test_judgements_are_read_with_blank_lines_and_any_line_end() -> None:
    data = HEADER + b"1\ta\t2\r\n\n1\tb\t0\n2\ta\t-1\n1\ta\t2\n"
    assert read_qrels(data, "t.tsv") == {"1": {"a": 2, "b": 0}, "2": {"a": -1}}


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"1\ta", "3 columns"), (b"1 a 2", "3 columns"), (b"1\ta\t2\t3", "3 columns"),
        (b"1\ta\t2.5", "not an integer"), (b"1\ta\tx", "not an integer"),
        (b"1\tz\t0", "judged differently"), (b"\xff\ta\t1", "not UTF-8"),
    ],
)  # fmt: skip
def test_a_bad_judgement_is_named(line: bytes, problem: str) -> None:
    with pytest.raises(UsageError, match=rf"t\.tsv, line 3: .*{problem}"):
        read_qrels(HEADER + b"1\tz\t1\n" + line, "t.tsv")


def test_a_missing_header_is_named_instead_of_losing_a_judgement() -> None:
    with pytest.raises(UsageError, match=r"t\.tsv, line 1: .*header"):
        read_qrels(b"1\ta\t2\n1\tb\t1\n", "t.tsv")


@pytest.mark.parametrize("data", [b"", b"\n\n", b"\xef\xbb\xbf"])
def test_an_empty_file_says_what_was_expected(data: bytes) -> None:
    with pytest.raises(UsageError, match=r"q\.jsonl holds no queries"):
        read_queries(data, "q.jsonl")
    with pytest.raises(UsageError, match=r"t\.tsv holds no judgements"):
        read_qrels(data, "t.tsv")
    with pytest.raises(UsageError, match="holds no judgements"):
        read_qrels(HEADER + b"\n", "t.tsv")
