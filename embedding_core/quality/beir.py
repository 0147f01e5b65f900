"""Labelled queries in BEIR's file formats."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import NoReturn

from embedding_core.errors import UsageError


def read_queries(data: bytes, origin: str) -> dict[str, str]:
    """Query texts by id, from JSON lines with ``_id`` and ``text``, in file order.

    Raises ``UsageError`` that names ``origin`` and the line of the first problem: bad JSON, a
    missing or empty field, an id used twice, no query at all.
    """
    queries: dict[str, str] = {}
    for number, line in _lines(data, origin):
        query_id, text = _query(line, origin, number)
        if query_id in queries:
            _refuse(origin, number, f"query id {query_id!r} is used twice")
        queries[query_id] = text
    if not queries:
        raise UsageError(f"{origin} holds no queries; expected JSON lines with _id and text")
    return queries


def read_qrels(data: bytes, origin: str) -> dict[str, dict[str, int]]:
    """Grades by query id and document id, from tab-separated lines under a header.

    A grade above 0 means relevant. Raises ``UsageError`` that names ``origin`` and the line of
    the first problem: not three columns, no header, a grade that is not an integer, a pair judged
    twice differently, no judgement at all.
    """
    qrels: dict[str, dict[str, int]] = {}
    lines = _lines(data, origin)
    number, header = next(lines, (1, ""))
    if _is_judgement(header):
        _refuse(origin, number, "expected the header query-id, corpus-id, score")
    for number, line in lines:
        query_id, doc_id, grade = _judgement(line, origin, number)
        if qrels.setdefault(query_id, {}).setdefault(doc_id, grade) != grade:
            _refuse(origin, number, f"{query_id!r} and {doc_id!r} were judged differently before")
    if not qrels:
        raise UsageError(f"{origin} holds no judgements; expected query-id, corpus-id, score")
    return qrels


def _lines(data: bytes, origin: str) -> Iterator[tuple[int, str]]:
    """Lines that are not blank with their 1-based numbers, without a BOM."""
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if line.strip():
            try:
                yield number, line.rstrip(b"\r").decode()
            except UnicodeDecodeError as error:
                _refuse(origin, number, f"not UTF-8: {error}")


def _query(line: str, origin: str, number: int) -> tuple[str, str]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        _refuse(origin, number, f"not JSON: {error}")
    if not isinstance(record, dict):
        _refuse(origin, number, "expected an object with _id and text")
    query_id, text = record.get("_id"), record.get("text")
    if isinstance(query_id, int) and not isinstance(query_id, bool):
        query_id = str(query_id)
    if not isinstance(query_id, str) or not query_id:
        _refuse(origin, number, "_id is missing or not a string")
    if not isinstance(text, str) or not text.strip():
        _refuse(origin, number, "text is missing, empty or not a string")
    return query_id, text


def _is_judgement(line: str) -> bool:
    fields = line.split("\t")
    return len(fields) == 3 and _is_integer(fields[2])


def _judgement(line: str, origin: str, number: int) -> tuple[str, str, int]:
    fields = line.split("\t")
    if len(fields) != 3:
        _refuse(origin, number, f"expected 3 columns parted by tabs, found {len(fields)}")
    query_id, doc_id, grade = fields
    if not _is_integer(grade):
        _refuse(origin, number, f"the grade {grade!r} is not an integer")
    return query_id, doc_id, int(grade)


def _is_integer(field: str) -> bool:
    return field.strip().removeprefix("-").isdecimal()


def _refuse(origin: str, number: int, problem: str) -> NoReturn:
    raise UsageError(f"{origin}, line {number}: {problem}; correct the line")
