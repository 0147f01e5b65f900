"""``embedlake import``: files that have vectors already, as a table."""

from __future__ import annotations

from collections.abc import Sequence

import click

from embedding_core.exports.exporter import KNOWN_EXPORTERS
from embedding_core.recipe import Recipe
from embedlake.cli.options import (
    json_option,
    pair,
    parts,
    recipe_argument,
    respond_and_exit,
    saying_what_takes_long,
)
from embedlake.settings import read_settings


@click.command("import")
@click.argument("origin", metavar="FILES")
@recipe_argument
@click.option(
    "--from",
    "format_name",
    metavar="FORMAT",
    help=f"Format of the files: {', '.join(KNOWN_EXPORTERS.built_in)}; default: told by them.",
)
@click.option(
    "--rename",
    multiple=True,
    metavar="OURS=THEIRS[,…]",
    help="What a column of the table is called in the files.",
)
@click.option("--normalize", is_flag=True, help="Bring vectors to unit length.")
@click.option(
    "--sample",
    "sample_rows",
    type=click.IntRange(min=0),
    default=64,
    show_default=True,
    help="Rows that are embedded again, to compare their vectors; 0: none.",
)
@json_option
def import_files(
    origin: str,
    recipe: str,
    format_name: str | None,
    rename: Sequence[str],
    normalize: bool,
    sample_rows: int,
    as_json: bool,
) -> None:
    """Make the recipe's table of FILES that have vectors already; embed nothing.

    FILES is an export, or a folder or file with texts and vectors of the recipe's model. Some
    texts are embedded again to see that they are.
    """
    from embedding_core.reports.exchange.imported import ImportView
    from embedding_core.runs.exchange.importing import ImportSpec, import_rows

    loaded, settings = Recipe.load(recipe), read_settings()
    names = dict(pair(text) for text in parts(rename))
    spec = ImportSpec(format_name, names, normalize, sample_rows)
    with saying_what_takes_long("import"):
        wait_seconds = settings.lock_wait_seconds
        done = import_rows(loaded, settings.resources, origin, spec, wait_seconds)
    report = ImportView(done)
    respond_and_exit(report.data(), report.lines(), as_json)


COMMANDS: tuple[click.Command, ...] = (import_files,)
