"""JSON that others wrote: any text is a value or a ``ValueError``, also one that a parser stumbles
over."""

from __future__ import annotations

import json
from typing import Any


def read_json(text: str | bytes) -> Any:
    """The value of a JSON text. Raises ``ValueError`` for any other text, and for one whose lists
    or objects are nested deeper than can be parsed."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("its lists or objects are nested too deep") from error
