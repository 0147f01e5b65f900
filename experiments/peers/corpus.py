"""A small source of JSON lines in two states, and which words each state has.

Each word is there once: it names its file, its document, and how often the file was written. So a
table can be judged whatever its tool calls a chunk.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path

WORDS_PER_DOCUMENT = (3, 16, 40, 70)

Corpus = Mapping[str, Mapping[str, str]]
"""Texts by file name and document id."""


def first_state(seed: int = 1) -> dict[str, dict[str, str]]:
    """What is in the table before anything fails."""
    return {f"f{number}.jsonl": _file(f"f{number}", 0, 4, seed) for number in range(6)}


def second_state(seed: int = 1) -> dict[str, dict[str, str]]:
    """Two files are added and two changed; one shrinks, one leaves, one has another name."""
    files = first_state(seed)
    for name in ("new0", "new1"):
        files[f"{name}.jsonl"] = _file(name, 1, 4, seed)
    for name in ("f0", "f1"):
        files[f"{name}.jsonl"] = _file(name, 1, 4, seed)
    shrunk = files["f2.jsonl"]
    files["f2.jsonl"] = {key: " ".join(shrunk[key].split()[:10]) for key in list(shrunk)[:2]}
    del files["f3.jsonl"]
    files["renamed.jsonl"] = files.pop("f4.jsonl")
    return files


def _file(stem: str, n_writes: int, n_documents: int, seed: int) -> dict[str, str]:
    chance = random.Random(f"{seed} {stem} {n_writes}")
    texts = {}
    for number in range(n_documents):
        n_words = chance.choice(WORDS_PER_DOCUMENT)
        words = (f"{stem}_d{number}_{n_writes}_{word}" for word in range(n_words))
        texts[f"d{number}"] = " ".join(words)
    return texts


def write(folder: Path, corpus: Corpus) -> None:
    """Make a folder hold these files and no others; files that are the same are not touched."""
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        if path.name not in corpus:
            path.unlink()
    for name, texts in corpus.items():
        lines = (json.dumps({"id": key, "text": text}) + "\n" for key, text in texts.items())
        content, path = "".join(lines), folder / name
        if not path.exists() or path.read_text() != content:
            path.write_text(content)
