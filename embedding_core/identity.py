"""Digests that decide whether rows, files, units and spaces are the same.

A digest is SHA-256 over canonical JSON (sorted keys, no spaces, UTF-8). Values without one stable
form are refused rather than hashed by accident. Digests are 64 hex digits; people see 12.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from embedding_core.records import SourceFile, Space

if TYPE_CHECKING:
    from embedding_core.recipe import ChunkOptions, Recipe

SHOWN_DIGITS = 12
"""Hex digits shown to people; 48 bits tell apart any number of spaces a person will see."""

ID_DIGEST_BYTES = 16
"""Length of a document id's hash: 10⁹ ids collide with a chance of 10⁻²¹."""

ROW_RULES_VERSION = 1
"""Goes up when the code that cuts or renders texts makes other rows of the same input."""


def digest(value: object) -> str:
    """SHA-256 of the canonical JSON of ``value``, 64 hex digits.

    Accepts None, bool, int, finite float, str, and lists, tuples and string-keyed mappings of
    them. Raises ``TypeError`` for anything else (sets have no order, objects no stable form).
    """
    canonical = json.dumps(
        _stable(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()


def _stable(value: object) -> Any:
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise TypeError(f"{value!r} has no stable form; replace it before taking a digest")
        return value
    if isinstance(value, (list, tuple)):
        return [_stable(item) for item in value]
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise TypeError("a mapping with keys that are not strings has no stable form")
        return {key: _stable(item) for key, item in value.items()}
    raise TypeError(f"{type(value).__name__} has no stable form; digest its plain values instead")


def text_hash(text: str) -> str:
    """SHA-256 of the text's UTF-8 bytes: equal texts have equal vectors in one space."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def id_digest(doc_id: str) -> bytes:
    """Hash of a document's id, to tell the ids of a file apart in little memory."""
    return hashlib.blake2b(doc_id.encode(), digest_size=ID_DIGEST_BYTES).digest()


def chunk_id(source_uri: str, doc_id: str, chunk_index: int, text_digest: str) -> str:
    """Deterministic id of a row: file, document, position, text."""
    return digest([source_uri, doc_id, chunk_index, text_digest])


@lru_cache(maxsize=64)
def space_id(space: Space) -> str:
    """Digest of everything that decides whether vectors may be compared; names do not count."""
    fields = asdict(space)
    del fields["model"], fields["revision"]
    return digest(fields)


def row_rules(
    recipe: Recipe, chunk: ChunkOptions, tokenizer: str, limit: int, prompt: str
) -> dict[str, Any]:
    """The rules that decide rows: source mapping, chunker, tokenizer, length policy.

    ``chunk`` is the recipe's chunk section with its lengths resolved, ``tokenizer`` the digest of
    the tokenizer that cuts, ``limit`` the longest chunk in its tokens, ``prompt`` the document
    prompt that is counted with every chunk. The source of ``source.map`` is part of them; raises
    ``UsageError`` when its module cannot be found.
    """
    source = recipe.source
    return {
        "version": ROW_RULES_VERSION,
        "format": source.format,
        "formats": {
            name: hashed for name, options in source.formats.items() if (hashed := options.hashed())
        },
        "id": source.id,
        "text": source.text,
        "normalize": source.normalize,
        "whitespace": source.whitespace,
        "conversation": source.conversation and source.conversation.model_dump(mode="json"),
        "map": source.map and source.map.hashed(),
        "metadata": {name: column.model_dump() for name, column in source.metadata.items()},
        "chunk": chunk.hashed(),
        "tokenizer": tokenizer,
        "length_limit": limit,
        "prompt": prompt,
        "over_length": recipe.model.over_length,
    }


def rows_id(rules: Mapping[str, Any]) -> str:
    """Digest of the row rules: files cut by the same rules have the same rows."""
    return digest(rules)


def file_key(file: SourceFile, rows: str, choice: str = "") -> str:
    """Digest of URI, content, row rules and chosen documents: the same key means the same rows.

    ``choice`` is the digest of a ``Choice``, empty where every document is taken.
    """
    return digest([file.uri, file.fingerprint, rows, *([choice] if choice else [])])


def unit_id(file_keys: Iterable[str], space: str, attempt: int | None = None) -> str:
    """Digest of a work unit's result: the rows of its files with vectors of one space.

    ``attempt`` tells units apart that make the same rows again.
    """
    return digest([sorted(file_keys), space, *([] if attempt is None else [attempt])])
