"""Python's JSON parser, made strict where it is lenient: NaN, keys that repeat."""

from __future__ import annotations

import json
from typing import NoReturn

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
