"""``embedlake export``: a version of a table as files for other tools."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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


@click.command()
@recipe_argument
@click.argument("destination", metavar="DEST")
@click.option(
    "--to",
    required=True,
    metavar="FORMAT",
    help=f"Format of the files: {', '.join(KNOWN_EXPORTERS.built_in)}.",
)
@click.option(
    "--columns",
    multiple=True,
    metavar="NAME[,NAME…]",
    help="Columns to write, in this order; default: all but vectors that are not in service.",
)
@click.option("--where", metavar="SQL", help="Rows that pass this filter alone.")
@click.option("--split-by", metavar="COLUMN", help="A folder for each value of this column.")
@click.option(
    "--shard-rows",
    type=click.IntRange(min=1),
    default=100_000,
    show_default=True,
    help="Rows of a file at most.",
)
@click.option(
    "--dtype",
    type=click.Choice(["float16", "float32"]),
    help="Type of the numbers of vectors; default: the table's.",
)
@click.option("--list", "as_list", is_flag=True, help="Vectors as lists, not of a fixed size.")
@click.option(
    "--rename", multiple=True, metavar="OLD=NEW[,…]", help="Write a column under another name."
)
@click.option("--overwrite", is_flag=True, help="Replace an export that is at DEST.")
@click.option("--resume", is_flag=True, help="Go on with an export that was cut off.")
@json_option
def export(
    recipe: str,
    destination: str,
    columns: Sequence[str],
    rename: Sequence[str],
    overwrite: bool,
    resume: bool,
    as_json: bool,
    **spec: Any,
) -> None:
    """Write the table's rows to DEST as files, with a manifest of digests.

    DEST is a local folder or s3://bucket/prefix. The rows are those of the table's newest version,
    whatever is written meanwhile, and the same version gives the same bytes.
    """
    from embedding_core.exports.spec import ExportSpec
    from embedding_core.reports.exchange.exported import ExportView
    from embedding_core.runs.exchange import exporting

    asked = spec | {
        "columns": tuple(parts(columns)) if columns else None,
        "rename": dict(pair(text) for text in parts(rename)),
    }
    loaded, checked = Recipe.load(recipe), ExportSpec.of(asked)
    with saying_what_takes_long("export"):
        done = exporting.export(loaded, checked, destination, overwrite, resume)
    report = ExportView(done)
    respond_and_exit(report.data(), report.lines(), as_json)


COMMANDS: tuple[click.Command, ...] = (export,)
