"""``embedlake validate``: one file of the source beside its rows in the table."""

from __future__ import annotations

import click

from embedding_core.recipe import Recipe
from embedlake.cli.options import (
    json_option,
    recipe_argument,
    respond_and_exit,
    saying_what_takes_long,
)


@click.command("validate")
@recipe_argument
@click.argument("file")
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=20,
    show_default=True,
    help="Differences to list at most.",
)
@json_option
def validate_file(recipe: str, file: str, limit: int, as_json: bool) -> None:
    """Compare one file of the source with its rows in the table.

    Reads and cuts FILE, a URI or a path below the source, as a run would now, and says which rows
    are missing, extra or different, and why. Changes nothing; ends with 1 when they differ.
    """
    from embedding_core.reports.inputs.validation import ValidationView
    from embedding_core.runs.inputs.checking import check_file

    loaded = Recipe.load(recipe)
    with saying_what_takes_long("validate"):
        report = ValidationView(check_file(loaded, file, limit))
    respond_and_exit(report.data(), report.lines(), as_json)


COMMANDS: tuple[click.Command, ...] = (validate_file,)
