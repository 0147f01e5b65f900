"""Queries made from rows: which, and what they ask."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa

from embedding_core.protocols import JudgedRows
from embedding_core.quality import KnownItem, known_items


def rows_of(
    chunk_ids: list[str],
    doc_ids: list[str],
    texts: list[str],
    titles: list[str | None] | None = None,
) -> JudgedRows:
    vectors = np.empty((len(texts), 0), np.float32)
    titles = titles or [None] * len(texts)
    return JudgedRows(chunk_ids, pa.array(doc_ids, pa.string()), texts, titles, vectors, vectors)


def batch(texts: dict[str, str], titles: list[str | None] | None = None) -> JudgedRows:
    chunk_ids = [f"chunk {name}" for name in texts]
    return rows_of(chunk_ids, list(texts), list(texts.values()), titles)


def queries(texts: dict[str, str], titles: list[str | None] | None = None) -> dict[str, str]:
    return {item.doc_id: item.query for item in known_items([batch(texts, titles)])}


def test_query_is_the_title_else_the_first_sentence_else_the_first_half() -> None:
    texts = {
        "titled": "Wings lift. They do so by flow.",
        "sentence": "Wings lift heavy aeroplanes. They do so by flow.",
        "short title": "Flow separates at the edge! And then it stalls.",
        "half": "one two three four five six seven eight",
        "line": "A heading of the text\nand what is under it",
        "中文": "机翼在飞行中产生升力的原理是什么。后面还有别的句子。",
    }
    titles = ["The lift of wings", None, "Flow", None, None, None]
    assert queries(texts, titles) == {
        "titled": "The lift of wings",
        "sentence": "Wings lift heavy aeroplanes.",
        "short title": "Flow separates at the edge!",
        "half": "one two three four",
        "line": "A heading of the text",
        "中文": "机翼在飞行中产生升力的原理是什么。",
    }


def test_query_of_a_text_without_an_end_is_cut_at_a_word() -> None:
    (query,) = queries({"a": "seven777 " * 100 + ". The end."}).values()
    assert len(query) <= 300 and set(query.split()) == {"seven777"}
    (query,) = queries({"a": "x" * 1_000}).values()
    assert query == "x" * 300


def test_rows_with_too_little_text_are_passed_over() -> None:
    assert queries({"a": "tiny text", "b": "", "c": "   "}) == {}


def test_queries_that_two_documents_give_are_left_out() -> None:
    texts = {"a": "The same opening. Then a.", "b": "The same opening. Then b.", "c": "x " * 20}
    assert set(queries(texts)) == {"c"}


def test_queries_are_the_same_for_the_same_rows_in_any_order_and_batches() -> None:
    texts = {f"d{n}": f"sentence number {n} of many. And more." for n in range(500)}
    items = known_items([batch(texts)], n_queries=50)
    assert len({item.doc_id for item in items}) == len(items) == 50
    names = list(texts)
    random.Random(1).shuffle(names)
    shuffled = [batch({name: texts[name] for name in names[n : n + 60]}) for n in range(0, 500, 60)]
    assert known_items(shuffled, n_queries=50) == items
    assert known_items([batch(texts)], n_queries=50, seed=1) != items


def test_a_document_of_many_chunks_gives_one_query() -> None:
    columns = (
        [f"c{n}" for n in range(40)],
        [f"d{n % 4}" for n in range(40)],
        [f"This is sentence {n} here. And more." for n in range(40)],
    )
    items = known_items([rows_of(*columns)], n_queries=3)
    assert len({item.doc_id for item in items}) == len(items) == 3
    backwards = (column[::-1] for column in columns)
    assert known_items([rows_of(*backwards)], n_queries=3) == items


def test_every_row_gives_a_query_when_there_are_few() -> None:
    assert known_items([batch({"a": "The only sentence here. More."})]) == [
        KnownItem("The only sentence here.", "a")
    ]
