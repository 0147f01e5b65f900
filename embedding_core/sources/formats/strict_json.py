"""Python's JSON parser, made strict where it is lenient: NaN, keys that repeat."""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

import numpy as np
from pydantic_core import from_json

from embedding_core.errors import RejectedInput
from embedding_core.reasons import TOO_MANY_VALUES
from embedding_core.sources.formats.format import shown


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    record = dict(pairs)
    if len(record) == len(pairs):
        return record
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise ValueError(f"key {shown(name)} twice in one object")
        seen.add(name)
    return record


STRICT = json.JSONDecoder(parse_constant=_no_constant, object_pairs_hook=_unique_keys)
"""Raises ``ValueError`` for what is no JSON, ``RecursionError`` for what is nested too deep."""

TOLERANT = json.JSONDecoder(parse_int=str)
"""Finds the end of a value that ``STRICT`` refuses, though its brackets and quotes are right."""

LONGEST_TOKEN = 16
"""Characters of the longest number part, constant or escape that the end of a text may cut in two.
"""


def may_be_cut_off(text: str, position: int) -> bool:
    """Whether an error at a position may come from the end of the text: the error is there, or at
    the beginning of a string, which has no end then."""
    return position >= len(text) - LONGEST_TOKEN or text[position] == '"'


MOST_VALUES = 1_000_000
"""Most values in a record: each of them takes far more memory than its comma."""
LONG_CHARACTERS = 4 * 1024 * 1024
"""A shorter text cannot hold so many values that memory matters."""
_MARKS = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"|(["\[{,\]}])', re.DOTALL)
"""A string, or a mark between values; a quote alone begins a string that has no end."""


def check_width(text: str, start: int = 0) -> None:
    """Raise ``RejectedInput`` where the object or list that begins here has too many values."""
    if len(text) - start < LONG_CHARACTERS:
        return
    depth = n_values = 0
    for match in _MARKS.finditer(text, start):
        mark = match[1]
        if mark is None:
            continue
        if mark in "]}":
            depth -= 1
        elif mark != '"':
            n_values += 1
            depth += mark != ","
        if mark == '"' or depth <= 0:
            return
        if n_values > MOST_VALUES:
            raise RejectedInput(
                TOO_MANY_VALUES,
                f"the record has more than {MOST_VALUES:,} values, the limit; leave some out",
            )


def objects_of(lines: list[bytes]) -> list[dict[str, Any]] | None:
    """The object of each line, as ``STRICT`` gives it, in a third of the time; None where a line
    holds something else, or where only ``STRICT`` can tell.

    The quick parser keeps the last of two equal keys. In front of the colon behind a key is a quote
    or white space; so if no more colons are there than keys were kept, none came twice.
    """
    text = b"".join(lines)
    if len(text) >= LONG_CHARACTERS:
        return None
    try:
        objects = [from_json(line, allow_inf_nan=False, cache_strings="keys") for line in lines]
    except ValueError:
        return None
    if set(map(type, objects)) != {dict}:
        return None
    characters = np.frombuffer(text, np.uint8)
    is_flat = np.count_nonzero(characters == ord("{")) == len(lines)
    n_keys = sum(map(len if is_flat else _n_keys, objects))
    may_end_keys = (characters[1:] == ord(":")) & (characters[:-1] <= ord('"'))
    return objects if np.count_nonzero(may_end_keys) == n_keys else None


def _n_keys(value: dict[str, Any] | list[Any]) -> int:
    """Keys of an object or list and of all that is in it."""
    is_object = isinstance(value, dict)
    inner = value.values() if isinstance(value, dict) else value
    n_inner = sum(_n_keys(item) for item in inner if isinstance(item, (dict, list)))
    return n_inner + (len(value) if is_object else 0)
