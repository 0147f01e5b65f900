"""The report flow: a look at a table, as a page, a picture and tables. One process, no Ray.

1. Count the table, read its ledger, look at a sample of its vectors.
2. Write the page; keep the same figures and pictures as artifacts.
"""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from embedding_core.errors import EmbedlakeError
from embedding_core.recipe import Recipe
from embedding_core.reports.look.overview import OverviewView
from embedding_core.reports.look.overview_picture import overview_picture_uri
from embedding_core.reports.pages.page import check_replaceable, write_page
from embedding_core.reports.pages.table_page import table_page
from embedding_core.runs.inputs.own_output import check_outside_source
from embedding_core.runs.look import overview
from embedding_core.runs.look.vector_figures import Look
from embedding_core.store.layout import report_path
from embedlake import interrupts
from embedlake.orchestration.naming import run_name
from embedlake.orchestration.outcome import ended, failed
from embedlake.orchestration.parameters import fail_for_parameters
from embedlake.orchestration.publishing import REPORT, publish, publish_picture
from embedlake.orchestration.watching import watched_settings


@flow(
    name="report",
    description="Look at a table: figures, runs, releases, a map; as a page and as artifacts.",
    flow_run_name=run_name,
    validate_parameters=False,
    persist_result=False,
    on_crashed=[fail_for_parameters],
)
def report(
    recipe: str | dict[str, Any],
    out: str | None = None,
    column: str | None = None,
    color: str | None = None,
    method: str = "pca",
    sample: int = 5_000,
) -> dict[str, Any] | State[dict[str, Any]]:
    """Report on one recipe's table; changes nothing of it.

    Args:
        recipe: path or URI of a recipe file, or the recipe itself.
        out: an absolute path or ``s3://`` URI of the page; default: beside the table in the lake.
        column: the vectors to look at; default: those in service.
        color: the field that points are coloured by.
        method: ``pca``, ``tsne`` or ``umap``.
        sample: rows to look at, at most.
    """
    try:
        with interrupts.not_mistaken():
            loaded = Recipe.load(recipe)
            page = out or report_path(loaded.lake.uri, loaded.lake.table)
            check_replaceable(page, loaded.lake.storage)
            check_outside_source(loaded, page)
            look = Look(column, color, method, sample)
            made = overview.look_at(loaded, look, watched_settings().price_per_hour)
            write_page(page, table_page(made), loaded.lake.storage)
    except EmbedlakeError as error:
        return failed(error)
    view = OverviewView(made, page)
    publish(REPORT, loaded, view)
    publish_picture("report-picture", loaded, overview_picture_uri(made))
    return ended(view)
