"""``embedlake drop``: remove a table, after asking."""

from __future__ import annotations

from dataclasses import asdict

import click

from embedding_core.errors import UsageError
from embedding_core.recipe import Recipe
from embedlake.cli.options import json_option, recipe_argument, respond, say
from embedlake.settings import read_settings


def _is_confirmed() -> bool:
    """Whether someone says yes; an input that ends says no."""
    try:
        return click.confirm("Remove all of this?", err=True)
    except click.Abort as error:
        if isinstance(error.__context__, EOFError):
            return False
        raise


@click.command()
@recipe_argument
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def drop(recipe: str, yes: bool, as_json: bool) -> None:
    """Remove the recipe's table with its ledger, its rejects and all that its runs left.

    Asks first. The source is not touched: `embedlake embed` makes the table again, and embeds
    everything for it.
    """
    from embedding_core.runs import removal
    from embedding_core.runs.removal import what_drop_removes

    loaded = Recipe.load(recipe)
    found = what_drop_removes(loaded)
    if not found.folders:
        respond({**asdict(found), "dropped": False}, [f"there is no table {found.table}"], as_json)
        return
    say([f"{found.table}: {_rows(found.rows)}", *(f"  {folder}" for folder in found.folders)])
    if not (yes or _is_confirmed()):
        raise UsageError("nothing was removed: answer y, or give --yes")
    removed = removal.drop(loaded, read_settings().lock_wait_seconds)
    lines = [f"dropped {removed.table}: {_rows(removed.rows)}, {len(removed.folders)} folders"]
    respond({**asdict(removed), "dropped": True}, lines, as_json)


def _rows(rows: int | None) -> str:
    return "damaged, cannot be read" if rows is None else f"{rows:,} rows"
