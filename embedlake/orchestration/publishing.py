"""What people see of a run: its log, and its artifacts in Prefect."""

from __future__ import annotations

from collections.abc import Iterable

from prefect import get_run_logger
from prefect.artifacts import create_image_artifact, create_markdown_artifact

from embedding_core.recipe import Recipe
from embedlake.orchestration.naming import artifact_key


def publish(kind: str, recipe: Recipe, lines: Iterable[str], page: str) -> None:
    """Log some lines, and keep a page of Markdown as the table's artifact of this kind."""
    for line in lines:
        get_run_logger().info(line)
    create_markdown_artifact(markdown=page, key=artifact_key(kind, recipe))


def publish_picture(kind: str, recipe: Recipe, uri: str) -> None:
    """Keep a picture as the table's artifact of this kind."""
    create_image_artifact(image_url=uri, key=artifact_key(kind, recipe))
