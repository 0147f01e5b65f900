"""Names that Prefect shows: of runs, their tags and the keys of their artifacts, per table."""

from __future__ import annotations

import re
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags
from prefect.runtime import flow_run

from embedding_core.errors import EmbedlakeError
from embedding_core.identity import digest
from embedding_core.recipe import Recipe
from embedding_core.store import storage

KEY_DIGITS = 6
"""Hex digits that tell two tables of one name apart in an artifact's key."""


def run_name() -> str:
    """``embed articles 12``: the flow, the table and the number of the table's run.

    Prefect calls it when a run begins. Tags the run with its table and its recipe. A recipe that
    cannot be read leaves the flow's own name; the run itself says what is wrong.
    """
    flow_name = str(flow_run.get_flow_name())
    try:
        recipe = Recipe.load(flow_run.get_parameters()["recipe"])
    except (EmbedlakeError, KeyError, TypeError):
        return flow_name
    tags = [flow_name, f"table:{recipe.lake.table}", f"recipe:{recipe.name}"]
    return f"{flow_name} {recipe.lake.table} {_tagged(UUID(flow_run.get_id()), tags)}"


def artifact_key(kind: str, recipe: Recipe) -> str:
    """The key of a table's artifact of one kind; the same in every run, so that Prefect keeps its
    history: lower-case letters, digits and dashes."""
    table = re.sub(r"[^a-z0-9]+", "-", recipe.lake.table.lower()).strip("-")
    uri = storage.join(recipe.lake.uri, recipe.lake.table)
    return f"{kind}-{table}-{digest(uri)[:KEY_DIGITS]}"


def _tagged(run_id: UUID, tags: list[str]) -> int:
    """Tag the run; the number of runs with these tags, this one included."""
    with get_client(sync_client=True) as client:
        client.update_flow_run(run_id, tags={*client.read_flow_run(run_id).tags, *tags})
        same = FlowRunFilter(tags=FlowRunFilterTags(all_=tags))
        return client.count_flow_runs(flow_run_filter=same)
