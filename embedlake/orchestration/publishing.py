"""What people see of a run: its log, and its artifacts in Prefect."""

from __future__ import annotations

from prefect import get_run_logger
from prefect.artifacts import create_image_artifact, create_markdown_artifact

from embedding_core.recipe import Recipe
from embedding_core.reports.report import Report
from embedlake.orchestration.naming import artifact_key


def publish(kind: str, recipe: Recipe, report: Report) -> None:
    """Log a report's lines, and keep its page as the table's artifact of this kind."""
    for line in report.lines():
        get_run_logger().info(line)
    create_markdown_artifact(markdown=report.markdown(), key=artifact_key(kind, recipe))


def publish_picture(kind: str, recipe: Recipe, uri: str) -> None:
    """Keep a picture as the table's artifact of this kind."""
    create_image_artifact(image_url=uri, key=artifact_key(kind, recipe))
