"""Libraries that only some formats need: loaded when the first such file is read."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from embedding_core.errors import RejectedInput, words
from embedding_core.reasons import MISSING_LIBRARY


def library(module: str, extra: str) -> ModuleType:
    """A module of an extra. Raises ``RejectedInput`` with the line that installs it."""
    try:
        return import_module(module)
    except ImportError as error:
        raise RejectedInput(
            MISSING_LIBRARY,
            f"reading it needs {module.partition('.')[0]} ({words(error)}): "
            f"pip install 'embedlake[{extra}]'",
        ) from error
