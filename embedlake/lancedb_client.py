"""Import this, and LanceDB's own ``table.search("some words")`` works on embedlake's tables.

LanceDB finds a table's embedding function by its name among those that were registered in the
process; importing this module registers it. A table that stays open follows a promote and a
rollback when it follows the table at all (``read_consistency_interval``, ``checkout_latest``).
"""

from __future__ import annotations

from contextlib import AbstractContextManager

from embedding_core.encoder.engines import describe_model
from embedding_core.lake.embedding_function import follow_changes, register
from embedding_core.protocols import TextEncoder
from embedding_core.recipe import ModelSpec, Resources
from embedding_core.runs.job import in_use
from embedding_core.runs.serving import check_servers


def _in_use(model: ModelSpec) -> AbstractContextManager[TextEncoder]:
    check_servers(model)  # the table named them
    return in_use(describe_model(model), model, Resources())


register(_in_use)
follow_changes()
