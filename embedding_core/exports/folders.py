"""Folders for the values of a column: safe on every file system, and none for two values."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence

NO_VALUE = "no-value"
"""Folder of the rows that have no value."""
MOST_CHARACTERS = 80
DIGEST_DIGITS = 8

_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_UNSAFE = re.compile(r"[^A-Za-z0-9-]+")
_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
"""Names that Windows keeps for devices."""


def folder_names(values: Sequence[object]) -> Mapping[object, str]:
    """A folder for each value.

    A value that can be a name on every file system is its own; any other, and values that differ
    in upper and lower case alone, get what is readable of them and a digest.
    """
    texts = {value: NO_VALUE if value is None else str(value) for value in values}
    times = Counter(text.casefold() for text in texts.values())
    names = {
        value: text
        if _is_safe(text) and times[text.casefold()] == 1
        else _digested(text, DIGEST_DIGITS)
        for value, text in texts.items()
    }
    uses = Counter(name.casefold() for name in names.values())
    return {
        value: name if uses[name.casefold()] == 1 else _digested(f"{type(value)}:{value}", 64)
        for value, name in names.items()
    }


def _is_safe(text: str) -> bool:
    return (
        len(text) <= MOST_CHARACTERS
        and _SAFE.fullmatch(text) is not None
        and not text.endswith(".")
        and _DEVICE.fullmatch(text) is None
    )


def _digested(text: str, digits: int) -> str:
    readable = _UNSAFE.sub("-", text)[-MOST_CHARACTERS // 2 :].strip("-")  # a path's own name
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:digits]
    return f"{readable}-{digest}" if readable else digest
