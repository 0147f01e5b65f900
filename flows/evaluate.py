"""The evaluate flow: how well a table answers labelled queries. One process, no Ray.

1. Read the queries and their judgements.
2. Ask each query by exact search, score the ranking.
3. Keep the figures as an artifact, whose history shows how they move.
"""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from embedding_core.errors import EmbedlakeError
from embedding_core.recipe import Recipe
from embedding_core.reports.evaluation import EvaluationView
from embedding_core.runs.space import evaluation
from embedlake import interrupts
from embedlake.orchestration.naming import run_name
from embedlake.orchestration.outcome import ended, failed
from embedlake.orchestration.parameters import fail_for_parameters
from embedlake.orchestration.publishing import publish
from embedlake.orchestration.watching import watched_settings


@flow(
    name="evaluate",
    description="Score a table on labelled queries: nDCG, recall and MRR with their intervals.",
    flow_run_name=run_name,
    validate_parameters=False,
    persist_result=False,
    on_crashed=[fail_for_parameters],
)
def evaluate(
    recipe: str | dict[str, Any],
    queries: str | None = None,
    qrels: str | None = None,
    column: str = "vector",
    resources: dict[str, Any] | None = None,
) -> dict[str, Any] | State[dict[str, Any]]:
    """Evaluate one recipe's table; changes nothing of it.

    Args:
        recipe: path or URI of a recipe file, or the recipe itself.
        queries: an absolute path or URI of the queries; default: the recipe's release section.
        qrels: an absolute path or URI of the judgements; default: the recipe's release section.
        column: the vectors to judge; default: those in service.
        resources: settings that only change speed, over those of the environment.
    """
    try:
        settings = watched_settings()
        with interrupts.not_mistaken():
            loaded = Recipe.load(recipe)
            chosen = settings.resources.updated(resources or {})
            scores = evaluation.evaluate(loaded, chosen, queries, qrels, column)
    except EmbedlakeError as error:
        return failed(error)
    view = EvaluationView(scores)
    publish("evaluate-report", loaded, view)
    return ended(view)
