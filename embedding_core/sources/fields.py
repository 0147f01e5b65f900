"""The fields of a sample of records: their types, how often they are there, what they look like."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from uuid import UUID

from embedding_core.identity import id_digest
from embedding_core.recipe.mapping.conversation import ConversationSpec
from embedding_core.records import ColumnType
from embedding_core.records.scalars import from_text, timestamp
from embedding_core.sources.formats.format import Cell, Undecodable, type_name
from embedding_core.sources.mapping.turns import ROLES

MOST_DEPTH = 3
"""Objects within objects that fields are looked for in."""
MOST_FIELDS = 200
TURN = ConversationSpec()
"""The names that a turn of a conversation may have for its speaker and its text."""

_PLAIN_NAME = re.compile(r"[^\W\d]\w*(?:[ -]\w+)*")
_LEADING_ZERO = re.compile(r"[+-]?0\d")
_URL = re.compile(r"[a-z][a-z0-9+.-]*://\S+\Z|/\S+/\S+\Z")


@dataclass(slots=True)
class FieldSample:
    """What a field holds in the records that were sampled."""

    path: str
    """Its path, as a recipe has it."""
    name: str
    """Its own name, the last step of the path."""
    kinds: Counter[str] = field(default_factory=Counter)
    """Types of the values that are not null, in words."""
    fits: set[ColumnType] | None = None
    """Column types that every value can be; None before the first value."""
    characters: int = 0
    """Characters of all strings together."""
    longest: int = 0
    """Characters of the longest string."""
    n_urls: int = 0
    n_blank: int = 0
    """Strings of nothing but white space."""
    repeats: bool = False
    """Whether a value occurs twice in a file."""
    n_turns: int = 0
    """Values that are conversations."""
    last_roles: Counter[str] = field(default_factory=Counter)
    """Who speaks last in them."""
    _seen: set[bytes] = field(default_factory=set)

    @property
    def n_values(self) -> int:
        """Values that are not null."""
        return self.kinds.total()

    @property
    def kind(self) -> str:
        """The most frequent type, in words."""
        return self.kinds.most_common(1)[0][0] if self.kinds else "null"

    @property
    def mean_characters(self) -> float:
        """Average length of its strings."""
        n_strings = self.kinds["string"]
        return self.characters / n_strings if n_strings else 0.0

    @property
    def column_type(self) -> ColumnType | None:
        """The narrowest type of a metadata column that holds every value; None without one."""
        order: tuple[ColumnType, ...] = ("bool", "int", "float", "timestamp", "string")
        return next((kind for kind in order if kind in (self.fits or ())), None)

    def add(self, value: object, file_number: int) -> None:
        """Look at a value; null counts as none."""
        if (
            value is None
            or isinstance(value, Undecodable)
            or (isinstance(value, Cell) and not value)
        ):
            return
        if isinstance(value, float) and math.isnan(value):
            return
        self.kinds[type_name(value)] += 1
        fits = _column_types(value)
        self.fits = fits if self.fits is None else self.fits & fits
        if isinstance(value, (str, int, UUID)):
            key = id_digest(f"{file_number}:{value}".encode("utf-8", "replace").decode())
            self.repeats = self.repeats or key in self._seen
            self._seen.add(key)
        if isinstance(value, str):
            self.characters += len(value)
            self.longest = max(self.longest, len(value))
            self.n_urls += _URL.match(value) is not None
            self.n_blank += not value.strip()
        if (role := last_role(value)) is not None:
            self.n_turns += 1
            self.last_roles[role] += 1


class FieldSurvey:
    """The fields of the records that it was shown, in the order in which they came."""

    def __init__(self) -> None:
        self.n_records = 0
        self.by_path: dict[str, FieldSample] = {}

    def add(self, fields: Mapping[str, object], file_number: int) -> None:
        """Look at a record."""
        self.n_records += 1
        for steps, value in _flattened(fields, ()):
            path = path_of(steps)
            if path not in self.by_path and len(self.by_path) >= MOST_FIELDS:
                continue
            sample = self.by_path.setdefault(path, FieldSample(path, steps[-1]))
            sample.add(value, file_number)

    def coverage(self, sample: FieldSample) -> float:
        """Share of the records in which a field is neither missing nor null."""
        return sample.n_values / self.n_records if self.n_records else 0.0


def path_of(steps: Collection[str]) -> str:
    """The path of names into objects, as a recipe has it."""
    written = ""
    for name in steps:
        if _PLAIN_NAME.fullmatch(name):
            written += f".{name}" if written else name
        else:
            quoted = name.replace("'", "''")
            written += f"['{quoted}']"
    return written


def last_role(value: object) -> str | None:
    """Who speaks last in a conversation: a list of turns, or the JSON text of one; None for any
    other value."""
    turns = value
    if isinstance(value, str) and value.startswith("[{"):
        try:
            turns = json.loads(value)
        except (ValueError, RecursionError):
            return None
    if not isinstance(turns, list) or not turns or not all(map(_is_turn, turns)):
        return None
    role = next(str(turns[-1][name]) for name in TURN.role if name in turns[-1])
    return ROLES.get(role, role)


def _is_turn(turn: object) -> bool:
    return isinstance(turn, Mapping) and all(
        any(name in turn for name in names) for names in (TURN.role, TURN.content)
    )


def _flattened(
    fields: Mapping[str, object], above: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], object]]:
    """Every field with the names that lead to it; objects by their fields."""
    for name, value in fields.items():
        steps = (*above, name)
        if isinstance(value, Mapping) and value and len(steps) < MOST_DEPTH:
            yield from _flattened(value, steps)
        else:
            yield steps, value


def _column_types(value: object) -> set[ColumnType]:
    """The column types that a value can be."""
    if isinstance(value, Cell):
        return _types_of_cell(value)
    if isinstance(value, str):
        is_moment = "-" in value and timestamp(value) is not None
        return {"timestamp", "string"} if is_moment else {"string"}
    if isinstance(value, bool):
        return {"bool"}
    if isinstance(value, int):
        return {"int", "float"} if abs(value) < 2**63 else set()
    if isinstance(value, (float, Decimal)):
        return {"float"} if math.isfinite(value) else set()
    if isinstance(value, (datetime, date)):
        return {"timestamp"}
    return {"string"} if isinstance(value, UUID) else set()


def _types_of_cell(cell: Cell) -> set[ColumnType]:
    """The column types that a text without a type can be read as."""
    types: set[ColumnType] = {"string"}
    candidates: tuple[ColumnType, ...] = ("bool", "int", "float", "timestamp")
    for kind in candidates:
        try:
            from_text(cell, kind)
        except ValueError:
            continue
        types.add(kind)
    if _LEADING_ZERO.match(cell):
        types -= {"int", "float"}
    if "-" not in cell:
        types.discard("timestamp")
    return types
