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
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b

from embedding_core.protocols import JudgedRows

N_QUERIES = 300
"""A share of 0.9 found is then known to ±0.034."""
FEWEST_CHARACTERS = 12
"""A shorter query fits many documents."""
MOST_CHARACTERS = 300
"""A "sentence" without an end is cut here, between two words where it has words."""

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+|(?<=[。！？])")


@dataclass(frozen=True, slots=True)
class KnownItem:
    """A query and the document it was made from."""

    query: str
    doc_id: str


def known_items(
    batches: Iterable[JudgedRows],
    n_queries: int = N_QUERIES,
    seed: int = 0,
    whole_texts: bool = False,
) -> list[KnownItem]:
    """A query for each of at most ``n_queries`` documents, chosen by a digest of their ids.

    The same rows in any order give the same queries. Memory is bounded by the queries and one
    batch. Documents with too little text are passed over, and queries that two of them give are
    left out. ``whole_texts``: a query is all of a text, for tables of nothing but short texts.
    """
    chosen: dict[str, tuple[int, str]] = {}  # digest of a chunk, and its query, by document
    largest: list[tuple[int, str]] = []  # a heap of the chosen documents, largest digest first
    for rows in batches:
        doc_ids = rows.doc_ids.to_pylist()
        for chunk_id, doc_id, text, title in zip(
            rows.chunk_ids, doc_ids, rows.texts, rows.titles, strict=True
        ):
            priority = -_digest(seed, doc_id)
            if len(chosen) >= n_queries and priority < largest[0][0]:
                continue
            query = " ".join(text.split()) if whole_texts else _query(text, title)
            if query is None:
                continue
            candidate = (_digest(seed, chunk_id), query)
            if doc_id not in chosen:
                heapq.heappush(largest, (priority, doc_id))
            chosen[doc_id] = min(candidate, chosen.get(doc_id, candidate))
            if len(chosen) > n_queries:
                del chosen[heapq.heappop(largest)[1]]
    return _unambiguous({doc_id: chosen[doc_id][1] for _, doc_id in sorted(largest)})


def _digest(seed: int, name: str) -> int:
    return int.from_bytes(blake2b(f"{seed} {name}".encode(), digest_size=8).digest(), "big")


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
    """The first ``most`` characters, ending with a whole word where spaces part words."""
    if len(text) <= most:
        return text
    words = text[: most + 1].rsplit(maxsplit=1)
    return words[0] if len(words) == 2 else text[:most]


def _unambiguous(queries: dict[str, str]) -> list[KnownItem]:
    """The queries, without those that two documents share."""
    counts = Counter(queries.values())
    return [KnownItem(query, doc_id) for doc_id, query in queries.items() if counts[query] == 1]
