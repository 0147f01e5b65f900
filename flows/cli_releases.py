"""Commands about the spaces of a table: judge them, put them in service, go back, let go."""

from __future__ import annotations

import getpass
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from embedding_core.errors import UsageError
from embedding_core.recipe import Recipe
from flows.cli_common import json_option, recipe_argument, respond
from flows.settings import read_settings

if TYPE_CHECKING:
    from embedding_core.lake import Release, Table


@click.command()
@recipe_argument
@click.option("--queries", help="JSON lines with _id and text; default: release.queries.")
@click.option("--qrels", help="TSV of query id, document id, grade; default: release.qrels.")
@click.option("--column", default="vector", show_default=True, help="Vector column to judge.")
@json_option
def evaluate(
    recipe: str, queries: str | None, qrels: str | None, column: str, as_json: bool
) -> None:
    """Score the table on labelled queries (BEIR file formats)."""
    from embedding_core import pipeline

    loaded = Recipe.load(recipe)
    found = pipeline.evaluate(loaded, read_settings().resources, queries, qrels, column)
    metrics = {name: asdict(interval) for name, interval in found.metrics.items()}
    data = asdict(found) | {"columns": {found.column: metrics}}
    del data["metrics"]
    lines = [f"{found.column}: {found.queries:,} queries, 95 % intervals"]
    lines += [
        f"  {name:<10} {one['mean']:.4f}  ({one['low']:.4f} to {one['high']:.4f})"
        for name, one in metrics.items()
    ]
    respond(data, lines, as_json)


@click.command()
@recipe_argument
@click.argument("column", metavar="COLUMN")
@click.option(
    "--picture",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    metavar="FILE",
    help="Draw intervals and scores into FILE, as SVG.",
)
@json_option
def gate(recipe: str, column: str, picture: Path | None, as_json: bool) -> None:
    """Judge the space of COLUMN against the one in service: yes, or no with exit code 4.

    Both are asked the same queries by exact search: those of the recipe's release section, or,
    when it names none, queries made from the table's own rows. Changes nothing.
    """
    from embedding_core import pipeline
    from flows.gate_report import gate_data, gate_lines, write_picture

    if picture is not None and not picture.absolute().parent.is_dir():
        raise UsageError(f"there is no folder for the picture {picture}; make it first")
    report = pipeline.gate(Recipe.load(recipe), read_settings().resources, column)
    if picture is not None:
        write_picture(report, picture)
    respond(gate_data(report), gate_lines(report), as_json)
    raise click.exceptions.Exit(report.exit_code)


@click.command()
@recipe_argument
@click.argument("column", metavar="COLUMN")
@json_option
def promote(recipe: str, column: str, as_json: bool) -> None:
    """Put the space of COLUMN in service, in one commit.

    Refused while a row has no vector in it. The space that was in service is kept in a column of
    its own; `embedlake rollback` goes back to it. Name the new model in the recipe afterwards.
    """
    from embedding_core import lake

    _answer_release(lake.promote(_released_table(recipe), column, getpass.getuser()), as_json)


@click.command()
@recipe_argument
@click.option("--now", is_flag=True, help="Switch even when rows that came since are not in it.")
@json_option
def rollback(recipe: str, now: bool, as_json: bool) -> None:
    """Put the space back in service that was there before, in one commit.

    Refused while rows that came since have no vector in it; with --now they are not found until
    they have one. Name the old model in the recipe afterwards.
    """
    from embedding_core import lake

    _answer_release(lake.rollback(_released_table(recipe), getpass.getuser(), now=now), as_json)


@click.command()
@recipe_argument
@click.argument("column", metavar="COLUMN")
@json_option
def retire(recipe: str, column: str, as_json: bool) -> None:
    """Drop the vectors of COLUMN, and their index; never those in service."""
    from embedding_core import lake

    _answer_release(lake.retire(_released_table(recipe), column, getpass.getuser()), as_json)


@click.command()
@recipe_argument
@json_option
def releases(recipe: str, as_json: bool) -> None:
    """List what was promoted, rolled back and retired, newest first."""
    from embedding_core import lake
    from flows.report import release_lines

    found = lake.releases(_released_table(recipe))
    respond({"releases": [asdict(one) for one in found]}, release_lines(found), as_json)


def _released_table(recipe: str) -> Table:
    from embedding_core.lake import Lake, check_recipe

    loaded = Recipe.load(recipe)
    table = Lake.open(loaded.lake.uri, loaded.lake.storage).table(loaded.lake.table)
    check_recipe(table, loaded)
    return table


def _answer_release(release: Release, as_json: bool) -> None:
    from flows.report import release_line

    respond(asdict(release), [release_line(release)], as_json)


COMMANDS: tuple[click.Command, ...] = (evaluate, gate, promote, rollback, retire, releases)
