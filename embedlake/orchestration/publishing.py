"""What people see of a run: its log, and its artifacts in Prefect."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from prefect import get_run_logger
from prefect.artifacts import create_image_artifact, create_markdown_artifact

from embedding_core.errors import words
from embedding_core.recipe import Recipe
from embedding_core.reports.report import Report
from embedlake.orchestration.naming import artifact_key

REPORT = "report"
"""Kind of the artifact that a report of the whole table is."""


@contextmanager
def if_the_api_answers(artifact: str) -> Iterator[None]:
    """Log that an artifact was not kept instead of raising: a run is worth more than its pictures.

    Prefect's client has asked for a minute by then.
    """
    try:
        yield
    except httpx.HTTPError as error:
        get_run_logger().warning("the artifact %s is not in Prefect: %s", artifact, words(error))


def publish(kind: str, recipe: Recipe, report: Report) -> None:
    """Log a report's lines, and keep its page as the table's artifact of this kind.

    Every other page ends with a link to the report of the whole table, on the same Prefect server.
    """
    for line in report.lines():
        get_run_logger().info(line)
    page = report.markdown()
    if kind != REPORT:
        page += (
            f"\n\n[The report of the whole table](/artifacts/key/{artifact_key(REPORT, recipe)}): "
            "figures, runs, releases and a map, made by the last run of `report/report`"
        )
    with if_the_api_answers(kind):
        create_markdown_artifact(markdown=page, key=artifact_key(kind, recipe))


def publish_picture(kind: str, recipe: Recipe, uri: str) -> None:
    """Keep a picture as the table's artifact of this kind."""
    with if_the_api_answers(kind):
        create_image_artifact(image_url=uri, key=artifact_key(kind, recipe))
