"""Libraries that only these strategies need, and what installs them."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from embedding_core.errors import UsageError, words


def splitters(strategy: str) -> ModuleType:
    """The library of the splitters. Raises ``UsageError`` with the line that installs it."""
    return library("semantic_text_splitter", "chunkers", strategy)


def library(module: str, extra: str, strategy: str) -> ModuleType:
    """A module of an extra. Raises ``UsageError`` with the line that installs it."""
    try:
        return import_module(module)
    except ImportError as error:
        raise UsageError(
            f"chunk.strategy {strategy} needs {module} ({words(error)}): "
            f"pip install 'embedlake[{extra}]'"
        ) from error
