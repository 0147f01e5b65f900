"""What is wrong with a recipe, for the person who wrote it."""

from __future__ import annotations

import difflib
import reprlib
from types import UnionType
from typing import get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from embedding_core.errors import Action, UsageError
from embedding_core.recipe import formats
from embedding_core.recipe.chunk import ChunkOptions, sections

MOST_CHARACTERS = 500
"""Longest part of a message about a value."""
LONGEST_KEY = 80


def explain(
    error: ValidationError, origin: str, root: type[BaseModel], action: Action | None
) -> UsageError:
    """One error with every problem in the words of YAML."""
    lines = [f"{origin} cannot be used:"]
    for problem in error.errors():
        section, path = _section(root, problem["loc"])
        where = ".".join(map(_key, path)) or root.__name__.lower()
        if problem["type"] == "extra_forbidden":
            lines.append(f"  {where}: unknown key{_nearest(path[-1], section)}")
        elif problem["type"] == "union_tag_invalid":
            context = problem["ctx"]
            lines.append(
                f"  {where}.strategy: {context['tag']!r} is unknown; "
                f"use one of {context['expected_tags']}"
            )
        else:
            lines.append(f"  {where}: {_wrong(problem)}")
    return UsageError("\n".join(lines), action=action)


def _key(key: str) -> str:
    """A key as a person can read it, whatever it is."""
    return key if key.isprintable() and 0 < len(key) <= LONGEST_KEY else ascii(key[:LONGEST_KEY])


def _wrong(problem: ErrorDetails) -> str:
    """What is wrong with a value, in the words of YAML, and which value it is."""
    if problem["type"] == "missing":
        return "is required"
    if problem["type"] == "value_error":
        return shortened(str(problem["ctx"]["error"]))
    if problem["type"] == "tuple_type":
        return f"should be a list, as in [{reprlib.repr(problem['input'])}]"
    return f"{problem['msg']}, got {reprlib.repr(problem['input'])}"


def shortened(text: str) -> str:
    """A message that a person can read, whatever value it repeats."""
    return text if len(text) <= MOST_CHARACTERS else text[:MOST_CHARACTERS] + "…"


def _section(
    root: type[BaseModel], loc: tuple[int | str, ...]
) -> tuple[type[BaseModel] | None, list[str]]:
    """The section that holds the key at ``loc``, and the keys on the way as a recipe has them.

    ``recipe.chunk`` puts the name of a strategy into ``loc`` (``chunk.none.overlap``). The section
    is None below a key that holds no section.
    """
    section: type[BaseModel] | None = root
    path: list[str] = []
    steps = iter(map(str, loc))
    key = next(steps, None)
    while key is not None:
        path.append(key)
        field = None if section is None else section.model_fields.get(key)
        key = next(steps, None)
        if key is not None:
            variants = {} if field is None else section_variants(field.annotation)
            section = variants.get(key, variants.get(""))
            key = next(steps, None) if key in variants else key
    return section, path


def section_variants(annotation: object) -> dict[str, type[BaseModel]]:
    """The sections a field may hold, by tag; ``""`` is that of a field with one kind of section."""
    if annotation is ChunkOptions:
        return sections()
    if annotation == dict[str, formats.FormatOptions]:
        return {"": formats.section()}
    kinds = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
    models = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
    return {"": models[0]} if models else {}


def _nearest(key: str, section: type[BaseModel] | None) -> str:
    """``; did you mean 'chunk'?`` for a misspelt key, else the keys that exist there."""
    if section is None:
        return ""
    close = difflib.get_close_matches(key, section.model_fields, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known keys: {', '.join(section.model_fields)}"
