"""``embedlake peek``: what a file becomes."""

from __future__ import annotations

import click

from embedding_core.recipe import Recipe
from embedlake.cli.options import (
    json_option,
    recipe_argument,
    respond,
    saying_what_takes_long,
)


@click.command("peek")
@recipe_argument
@click.argument("name", metavar="[FILE|DOC]", required=False)
@click.option("--doc", "doc_id", metavar="ID", help="Show the document of this id alone.")
@click.option(
    "--records",
    "n_records",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="Records to show at most.",
)
@json_option
def show_file(
    recipe: str, name: str | None, doc_id: str | None, n_records: int, as_json: bool
) -> None:
    """Show what a file becomes: records, texts, chunks, and what is left out.

    FILE is a URI or a path below the source; without it the first file is shown. DOC is the id of a
    document, which is looked for when there is no such file. Reads one file, embeds nothing and
    needs no table.
    """
    from embedding_core.reports.inputs.peek import PeekView
    from embedding_core.runs.inputs.peeking import peek

    loaded = Recipe.load(recipe)
    with saying_what_takes_long("peek"):
        report = PeekView(peek(loaded, name, doc_id, n_records))
    respond(report.data(), report.lines(), as_json)


COMMANDS: tuple[click.Command, ...] = (show_file,)
