"""``embedlake drop``: remove a table, after asking."""

from __future__ import annotations

from dataclasses import asdict

import click

from embedding_core.errors import UsageError
from embedding_core.plurals import counted
from embedding_core.recipe import Recipe
from embedlake.cli.options import json_option, recipe_argument, respond, say
from embedlake.settings import read_settings


@click.command("drop")
@recipe_argument
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def drop_table(recipe: str, yes: bool, as_json: bool) -> None:
    """Remove the recipe's table with its ledger, its rejects and all that its runs left.

    Asks first. The source is not touched: `embedlake embed` makes the table again, and embeds
    everything for it.
    """
    from embedding_core.runs import removal

    loaded = Recipe.load(recipe)
    table = removal.what_drop_removes(loaded)
    if not table.folders:
        respond({**asdict(table), "dropped": False}, [f"there is no table {table.table}"], as_json)
        return
    say([f"{table.table}: {_rows(table.rows)}", *(f"  {folder}" for folder in table.folders)])
    if not (yes or _is_confirmed()):
        raise UsageError("nothing was removed: answer y, or give --yes")
    dropped = removal.drop(loaded, read_settings().lock_wait_seconds)
    lines = [
        f"dropped {dropped.table}: {_rows(dropped.rows)}, {counted(len(dropped.folders), 'folder')}"
    ]
    respond({**asdict(dropped), "dropped": True}, lines, as_json)


def _is_confirmed() -> bool:
    """Ask on the terminal. The end of the input counts as no."""
    try:
        return click.confirm("Remove all of this?", err=True)
    except click.Abort as error:
        if isinstance(error.__context__, EOFError):
            return False
        raise


def _rows(rows: int | None) -> str:
    return "damaged, cannot be read" if rows is None else counted(rows, "row")


COMMANDS: tuple[click.Command, ...] = (drop_table,)
