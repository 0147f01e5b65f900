"""Editions of a file: lines that follow from a number, and what a recipe makes of them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from embedding_core.records import ColumnType
from experiments.faults.world import Content

Record = Mapping[str, Any]

TEXTS: Mapping[str, Callable[[Record], str | None]] = {
    "text": lambda record: record.get("text"),
    "other": lambda record: record.get("other"),
    "{title|untitled}: {text}": lambda record: (
        f"{record.get('title') or 'untitled'}: {record['text']}" if record.get("text") else None
    ),
}
"""Settings of ``source.text``, with the text that each makes of a record; None without a field."""
WORDS_PER_TEXT = (2, 6, 13, 40)
VOCABULARY = 200
FLAWS = (None, None, None, "broken", "blank", "no text", "no other", "same id", "late")
YEARS, TAGS, TITLES = (2020, 2021, None), ("a", "b'c", None), ("First title", "Second title", None)


@dataclass(frozen=True, slots=True)
class Wording:
    """What a recipe reads of a record."""

    text: str = "text"
    has_title: bool = False
    columns: Mapping[str, ColumnType] = field(default_factory=dict)
    """Metadata columns: ``year`` and ``tag``."""

    def source(self) -> dict[str, Any]:
        """Fields of the recipe's source section."""
        title = "title" if self.has_title else None
        return {"text": self.text, "title": title, "metadata": dict(self.columns)}


def lines_of(edition: int, n_lines: int) -> tuple[str, ...]:
    """Lines of a file. Those of an even edition are in order, those of an odd edition may have
    flaws. An edition of more lines begins with the same lines."""
    return tuple(_line(edition, number) for number in range(n_lines))


def edition_of(text: str) -> int:
    """The edition that a text is of."""
    return int(text.partition(" ")[0].removeprefix("e"))


def content_of(lines: Iterable[str], wording: Wording) -> Content:
    """What a table has of lines: documents, the values of their columns, and rejects."""
    texts: dict[str, str] = {}
    columns: dict[str, dict[str, Any]] = {}
    rejects: list[tuple[int, str]] = []
    for position, line in enumerate(lines):
        if (record := _parsed(line)) is None:
            rejects.append((position, "malformed_json"))
            continue
        if reason := _reason(record, wording) or _repeated(record["id"], texts):
            rejects.append((position, reason))
            continue
        texts[record["id"]] = TEXTS[wording.text](record) or ""
        title = record.get("title") if wording.has_title else None
        metadata = {name: record.get(name) for name in wording.columns}
        columns[record["id"]] = {"context": title, **metadata}
    return Content(texts, rejects, columns)


def _line(edition: int, number: int) -> str:
    chance = random.Random(f"{edition} {number}")
    record: dict[str, Any] = {
        "id": f"d{number}",
        "text": f"e{edition} d{number} {_words(chance)}",
        "other": f"e{edition} other {_words(chance)}",
        "title": chance.choice(TITLES),
        "year": chance.choice(YEARS),
        "tag": chance.choice(TAGS),
    }
    flaw = chance.choice(FLAWS) if edition % 2 else None
    if flaw == "broken":
        return "{broken"
    changes: dict[str, dict[str, Any]] = {
        "blank": {"text": " ", "other": " "},
        "no text": {"text": None},
        "no other": {"other": None},
        "same id": {"id": f"d{max(0, number - 1)}"},
        "late": {"year": "late"},
    }
    return json.dumps(record | changes.get(flaw or "", {}))


def _words(chance: random.Random) -> str:
    n_words = chance.choice(WORDS_PER_TEXT)
    return " ".join(f"w{chance.randrange(VOCABULARY)}" for _ in range(n_words))


def _parsed(line: str) -> Record | None:
    try:
        record: Record = json.loads(line)
    except ValueError:
        return None
    return record


def _reason(record: Record, wording: Wording) -> str | None:
    """Why a record gives no document; None for a good one."""
    text = TEXTS[wording.text](record)
    if text is None:
        return "missing_field"
    if not text.strip():
        return "empty_text"
    kinds: Mapping[str, type] = {"int": int, "string": str}
    for name, declared in wording.columns.items():
        if record.get(name) is not None and not isinstance(record[name], kinds[declared]):
            return "wrong_type"
    return None


def _repeated(doc_id: str, texts: Mapping[str, str]) -> str | None:
    return "duplicate_id" if doc_id in texts else None
