"""embedlake's library: files in, a LanceDB table of embeddings out, kept true.

Importing this package loads nothing heavy; torch, lancedb and pydantic are loaded by the first
use of a name that needs them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from embedding_core.encoder import Encoder
    from embedding_core.lake.table import Lake
    from embedding_core.recipe import Recipe, Resources

__version__ = "0.1.0"
__all__ = ["Encoder", "Lake", "Recipe", "Resources", "__version__"]

_HOMES = {
    "Encoder": "embedding_core.encoder",
    "Lake": "embedding_core.lake.table",
    "Recipe": "embedding_core.recipe",
    "Resources": "embedding_core.recipe",
}


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'embedding_core' has no attribute {name!r}")
