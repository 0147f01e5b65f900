"""``embedlake feedback``: what people said of answers, as labelled queries."""

from __future__ import annotations

from pathlib import Path

import click

from embedding_core.recipe import Recipe
from embedlake.cli.options import json_option, recipe_argument, respond


@click.command("feedback")
@recipe_argument
@click.option(
    "--to-beir",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write queries, documents and judgements in BEIR's formats.",
)
@click.option(
    "--min-clicks",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Sessions that must have opened a document for it to count without a thumb.",
)
@click.option("--seed", default=0, show_default=True, help="Of the split, as in the training.")
@json_option
def feedback(recipe: str, folder: Path | None, min_clicks: int, seed: int, as_json: bool) -> None:
    """Count what people said of answers; write it as labelled queries.

    Queries to train on and queries to judge by are kept apart by a digest of their words, so a
    query stays on its side when more come.
    """
    from embedding_core.reports.exchange.learned import FeedbackView
    from embedding_core.runs.exchange.feedback_export import feedback_report

    target = None if folder is None else str(folder.absolute())
    report = FeedbackView(feedback_report(Recipe.load(recipe), target, min_clicks, seed))
    respond(report.data(), report.lines(), as_json)


COMMANDS: tuple[click.Command, ...] = (feedback,)
