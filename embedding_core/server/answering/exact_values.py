"""Values of a table as JSON carries them without a loss."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

MOST_EXACT = 2**53 - 1
"""Whole numbers beyond it are rounded by JavaScript, and by whatever reads numbers as floats."""


def exact(value: Any) -> Any:
    """The value; whole numbers beyond 53 bits as text, which filters take too, bytes in base64."""
    if isinstance(value, int) and abs(value) > MOST_EXACT:
        return str(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Mapping):
        return {name: exact(part) for name, part in value.items()}
    return list(map(exact, value)) if isinstance(value, list | tuple) else value
