"""Compares the words in a table with the words in the files, whatever tool wrote the table."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa

from experiments.peers.corpus import Corpus
from experiments.peers.kinds import MISSING, OTHER_VECTOR, STALE, TWICE
from experiments.peers.programs.hashed_words import vectors

TOLERANCE = 1e-4

Words = Counter[tuple[str, str]]
"""How often a table has a word, by the name of the file and the word."""


def kinds_of_wrong(lake: Path, corpus: Corpus) -> list[str]:
    """What is wrong with the newest version of the table: some of ``KINDS_OF_WRONG``."""
    dataset = _opened(lake)
    table = dataset.to_table() if dataset is not None else pa.table({"text": [], "vector": []})
    words, expected = _words(table), words_of(corpus)
    wrong = {
        MISSING: expected.keys() - words.keys(),
        TWICE: {key for key, n in words.items() if n > 1},
        STALE: words.keys() - expected.keys(),
        OTHER_VECTOR: set(_texts_with_other_vectors(table)),
    }
    return [kind for kind, which in wrong.items() if which]


def torn_files(lake: Path, after: int, before: Corpus, corpus: Corpus) -> set[str]:
    """Files of which a reader could see neither state, whole and once.

    ``after``: versions of the table up to this number are not looked at. A file that comes or goes
    may also be out of the table.
    """
    dataset = _opened(lake)
    if dataset is None:
        return set()
    old, new = _by_file(words_of(before)), _by_file(words_of(corpus))
    torn: set[str] = set()
    for version in dataset.versions():
        if version["version"] <= after:
            continue
        table = dataset.checkout_version(version["version"]).to_table(_columns(dataset.schema))
        seen = _by_file(_words(table))
        torn |= {name for name in old | new | seen if seen[name] not in (old[name], new[name])}
    return torn


def newest_version(lake: Path) -> int:
    """Number of the newest version of the table; 0 without a table."""
    dataset = _opened(lake)
    return 0 if dataset is None else int(dataset.version)


def words_of(corpus: Corpus) -> Words:
    """The words of files, each once."""
    return Counter(
        (name, word) for name, texts in corpus.items() for text in texts.values()
        for word in text.split()
    )  # fmt: skip


def _opened(lake: Path) -> lance.LanceDataset | None:
    path = lake / "docs.lance"
    try:
        return lance.dataset(str(path))
    except ValueError:
        if (path / "_versions").exists():
            raise
        return None


def _columns(schema: pa.Schema) -> list[str]:
    names = ("source", "source_uri", "metadata", "text")
    return [name for name in names if name in schema.names]


def _words(table: pa.Table) -> Words:
    return Counter(
        (_source(row), word) for row in table.select(_columns(table.schema)).to_pylist()
        for word in row["text"].split()
    )  # fmt: skip


def _source(row: dict[str, object]) -> str:
    """Name of a row's file, wherever the tool keeps it."""
    metadata = row.get("metadata")
    kept = metadata.get("source") if isinstance(metadata, dict) else None
    return str(row.get("source") or row.get("source_uri") or kept).rpartition("/")[2]


def _by_file(words: Words) -> dict[str, Counter[str]]:
    by_file: dict[str, Counter[str]] = defaultdict(Counter)
    for (name, word), n in words.items():
        by_file[name][word] = n
    return by_file


def _texts_with_other_vectors(table: pa.Table) -> Iterator[str]:
    texts = table["text"].to_pylist()
    for text, stored, right in zip(texts, table["vector"].to_pylist(), vectors(texts), strict=True):
        if stored is None or not np.allclose(stored, right, rtol=0, atol=TOLERANCE):
            yield text
