"""``embedlake metrics``: tables and their runs for Prometheus."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from embedding_core.errors import EmbedlakeError, UsageError, words
from embedding_core.plurals import counted
from embedding_core.recipe import Recipe
from embedlake.cli.options import json_option, respond, say


@click.command("metrics")
@click.argument("recipes", metavar="RECIPE...", nargs=-1, required=True)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write them to this file, whole or not at all; its name ends with .prom.",
)
@json_option
def show_metrics(recipes: Sequence[str], out: Path | None, as_json: bool) -> None:
    """Print metrics of the tables of each RECIPE, and of their runs, for Prometheus.

    Of runs under way too. With -o for the textfile collector of a node exporter: let cron run it
    every minute. `embedlake serve` has the same under /metrics. A table that cannot be read is told
    on stderr and has embedlake_table_readable 0.
    """
    from embedding_core.reports.exposition import exposition
    from embedding_core.runs.watched.table_figures import TableFigures, table_figures
    from embedding_core.store import storage

    if out is not None and out.suffix != ".prom":
        raise UsageError(f"{out} does not end with .prom, so no collector would read it; add it")
    loaded = [Recipe.load(recipe) for recipe in recipes]
    names = [recipe.lake.table for recipe in loaded]
    if len(set(names)) < len(names):
        raise UsageError(
            f"two recipes have a table of one name among {', '.join(names)}, which metrics could "
            "not tell apart; write them to two files"
        )
    figures, unreadable = list[TableFigures](), dict[str, str]()
    for recipe in loaded:
        try:
            figures.append(table_figures(recipe))
        except EmbedlakeError as error:
            unreadable[recipe.lake.table] = words(error)
    say([f"{name}: {why}" for name, why in unreadable.items()])
    text = exposition(figures, unreadable)
    if out is not None:
        storage.write_bytes(str(out.absolute()), text, storage.StorageSpec())
    data = {"tables": [asdict(table) for table in figures], "unreadable": unreadable}
    lines = (
        [f"metrics of {counted(len(names), 'table')} in {out}"]
        if out
        else text.decode().splitlines()
    )
    respond(data, lines, as_json)
    raise click.exceptions.Exit(1 if unreadable else 0)


COMMANDS: tuple[click.Command, ...] = (show_metrics,)
