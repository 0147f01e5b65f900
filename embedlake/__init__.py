"""Turn files into a LanceDB table of embeddings and keep it true.

The public names of the library, loaded at first use: importing this package loads nothing heavy.
``plan`` what a recipe would do, ``embed`` it in this process, ``search`` its table, or load an
``Encoder`` to make vectors of a model. The command line and the flows do the same work by Prefect
tasks, on Ray where there is much to do.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from embedding_core import __version__

if TYPE_CHECKING:
    from embedding_core.encoder import Encoder
    from embedding_core.errors import EmbedlakeError
    from embedding_core.lake.query.hits import Hit, Hits
    from embedding_core.lake.table import Lake, Table
    from embedding_core.recipe import Recipe, Resources
    from embedding_core.runs.answers import search
    from embedding_core.runs.embed.planning import plan
    from embedding_core.runs.embed.run import embed
    from embedding_core.runs.maintenance import maintain
    from embedding_core.runs.table_status import status

__all__ = [
    "EmbedlakeError",
    "Encoder",
    "Hit",
    "Hits",
    "Lake",
    "Recipe",
    "Resources",
    "Table",
    "__version__",
    "embed",
    "maintain",
    "plan",
    "search",
    "status",
]

_HOMES = {
    "EmbedlakeError": "embedding_core.errors",
    "Encoder": "embedding_core.encoder",
    "Hit": "embedding_core.lake.query.hits",
    "Hits": "embedding_core.lake.query.hits",
    "Lake": "embedding_core.lake.table",
    "Recipe": "embedding_core.recipe",
    "Resources": "embedding_core.recipe",
    "Table": "embedding_core.lake.table",
    "embed": "embedding_core.runs.embed.run",
    "maintain": "embedding_core.runs.maintenance",
    "plan": "embedding_core.runs.embed.planning",
    "search": "embedding_core.runs.answers",
    "status": "embedding_core.runs.table_status",
}


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'embedlake' has no attribute {name!r}")
