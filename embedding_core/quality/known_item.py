"""Queries made from the rows themselves, for a table that nobody has judged documents for.

Known-item search (Azzopardi, de Rijke & Balog 2007, doi:10.1145/1277741.1277820): a query is made
from a document, and that document is what must be found. A title stands for its document; without
one, the first sentence of a chunk stands for the chunk it opens. The chunk's vector covers that
sentence too, so such queries are easier than people's, and the means say little. They are equally
easy for two models, so the difference between them shows damage; it does not show which model
understands people's questions better.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b

import pyarrow as pa

N_QUERIES = 300
"""A share of 0.9 found is then known to ±0.034."""
FEWEST_CHARACTERS = 12
"""Of a query; shorter ones fit many documents."""
MOST_CHARACTERS = 300
"""Of a query; a "sentence" without an end is cut here, at a word where there is one."""

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+|(?<=[。！？])")


@dataclass(frozen=True, slots=True, order=True)
class KnownItem:
    """A query and the document it was made from."""

    query: str
    doc_id: str


def known_items(
    batches: Iterable[pa.RecordBatch], n_queries: int = N_QUERIES, seed: int = 0
) -> list[KnownItem]:
    """At most ``n_queries`` queries from rows chosen by a digest of their ``chunk_id``.

    ``batches`` have ``chunk_id``, ``doc_id``, ``text`` and may have ``title``. The same rows in any
    order give the same queries. Memory is bounded by the queries and one batch. Rows with too
    little text to stand for them are passed over, and so are queries that two documents give.
    """
    chosen: list[tuple[int, str, KnownItem]] = []  # a heap: the largest digest first
    for batch in batches:
        for chunk_id, doc_id, text, title in _rows(batch):
            place = -_digest(seed, chunk_id)
            if len(chosen) == n_queries and place <= chosen[0][0]:
                continue
            query = _query(text, title)
            if query is None:
                continue
            entry = (place, chunk_id, KnownItem(query, doc_id))
            if len(chosen) < n_queries:
                heapq.heappush(chosen, entry)
            else:
                heapq.heapreplace(chosen, entry)
    return _unambiguous([item for _, _, item in sorted(chosen, key=lambda one: one[:2])])


def _rows(batch: pa.RecordBatch) -> Iterable[tuple[str, str, str, str | None]]:
    titles = (
        batch.column("title").to_pylist() if "title" in batch.schema.names else [None] * len(batch)
    )
    columns = (batch.column(name).to_pylist() for name in ("chunk_id", "doc_id", "text"))
    return zip(*columns, titles, strict=True)


def _digest(seed: int, chunk_id: str) -> int:
    return int.from_bytes(blake2b(f"{seed} {chunk_id}".encode(), digest_size=8).digest(), "big")


def _query(text: str, title: str | None) -> str | None:
    """The title, else the opening of the text; None when neither is long enough."""
    for query in (title or "", _opening(text)):
        if len(query) >= FEWEST_CHARACTERS:
            return " ".join(query.split())
    return None


def _opening(text: str) -> str:
    """The first sentence when more follows it, else the first half of the text."""
    sentence, *rest = _SENTENCE_END.split(text.strip(), maxsplit=1)
    if not "".join(rest).strip() or len(sentence) < FEWEST_CHARACTERS:
        sentence = _cut(text.strip(), len(text.strip()) // 2)
    return _cut(sentence, MOST_CHARACTERS)


def _cut(text: str, most: int) -> str:
    """At most that many characters, and no part of a word where words are parted by spaces."""
    if len(text) <= most:
        return text
    words = text[: most + 1].rsplit(maxsplit=1)
    return words[0] if len(words) == 2 else text[:most]


def _unambiguous(items: list[KnownItem]) -> list[KnownItem]:
    """Each query once; those that two documents gave are left out."""
    documents: dict[str, set[str]] = {}
    for item in items:
        documents.setdefault(item.query, set()).add(item.doc_id)
    return [
        KnownItem(query, doc_ids.pop()) for query, doc_ids in documents.items() if len(doc_ids) == 1
    ]
