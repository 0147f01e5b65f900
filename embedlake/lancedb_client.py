"""Import this, and LanceDB's own ``table.search("some words")`` works on embedlake's tables.

LanceDB finds a table's embedding function by its name among those that were registered in the
process; importing this module registers it.
"""

from __future__ import annotations

from embedding_core.lake.embedding_function import register
from embedding_core.protocols import TextEncoder
from embedding_core.recipe import ModelSpec, Resources
from embedding_core.runs.job import load


def _load(model: ModelSpec) -> TextEncoder:
    return load(model, Resources())


register(_load)
