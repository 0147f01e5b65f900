"""``embedlake verify``: look for damage in a table, and take it out."""

from __future__ import annotations

import click

from embedding_core.recipe import Recipe
from embedlake.cli.options import (
    json_option,
    recipe_argument,
    respond_and_exit,
    saying_what_takes_long,
)
from embedlake.settings import read_settings


@click.command("verify")
@recipe_argument
@click.option("--deep", is_flag=True, help="Read every row, and embed a sample of them again.")
@click.option(
    "--sample",
    "sample_rows",
    type=click.IntRange(min=0),
    default=1_000,
    show_default=True,
    help="With --deep: rows whose vectors are made again, spread over the table; 0: none.",
)
@click.option(
    "--repair",
    "with_repair",
    is_flag=True,
    help="Take out damaged rows, which the next run makes again, rebuild broken indexes, and put "
    "a manifest aside that does not parse.",
)
@json_option
def verify_table(
    recipe: str, deep: bool, sample_rows: int, with_repair: bool, as_json: bool
) -> None:
    """Look for damage in the table, its ledger and its rejects: lost writes, flipped bits.

    Ends with 1 when something is damaged and stays so. Needs no Prefect.
    """
    from embedding_core.reports.audit import AuditView
    from embedding_core.runs.repair import audit, repair

    loaded, settings = Recipe.load(recipe), read_settings()
    with saying_what_takes_long("verify"):
        if with_repair:
            wait_seconds = settings.lock_wait_seconds
            result = repair(loaded, settings.resources, deep, sample_rows, wait_seconds)
        else:
            result = audit(loaded, settings.resources, deep, sample_rows)
    report = AuditView(result)
    respond_and_exit(report.data(), report.lines(), as_json)


COMMANDS: tuple[click.Command, ...] = (verify_table,)
