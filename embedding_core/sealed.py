"""Values of a table's metadata with a checksum among them: Lance keeps none of a manifest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

SEAL = "checksum"
SEAL_BYTES = 8


def sealed(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values, and what they add up to. They are what JSON knows."""
    as_read: dict[str, Any] = json.loads(json.dumps(values))
    return {**as_read, SEAL: _checksum(as_read)}


def unsealed(stored: Any) -> dict[str, Any]:
    """The values that were sealed, or that are older than seals.

    Raises ``ValueError`` for others than were written.
    """
    if not isinstance(stored, dict):
        raise ValueError("it is no JSON object")
    values = {name: value for name, value in stored.items() if name != SEAL}
    if SEAL in stored and stored[SEAL] != _checksum(values):
        raise ValueError("its values are not what was written")
    return values


def _checksum(values: Mapping[str, Any]) -> str:
    text = json.dumps(values, sort_keys=True)
    return blake2b(text.encode(), digest_size=SEAL_BYTES).hexdigest()
