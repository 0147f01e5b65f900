"""Commands that switch spaces: ``promote``, ``rollback``, ``retire``; ``releases`` lists them."""

from __future__ import annotations

import getpass
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import click

from embedding_core.recipe import Recipe
from embedlake.cli.options import json_option, recipe_argument, respond, saying_what_takes_long
from embedlake.settings import read_settings

if TYPE_CHECKING:
    from embedding_core.lake.spaces.switching import Release


@click.command()
@recipe_argument
@click.argument("column", metavar="COLUMN")
@json_option
def promote(recipe: str, column: str, as_json: bool) -> None:
    """Put the space of COLUMN in service, in one commit.

    Refused while a row has no vector in it, and while a vector index is being trained. The space
    that was in service is kept in another column; `embedlake rollback` goes back to it. Name the
    new model in the recipe afterwards.
    """
    _change("promote", recipe, column, as_json)


@click.command()
@recipe_argument
@click.argument("column", metavar="COLUMN")
@json_option
def retire(recipe: str, column: str, as_json: bool) -> None:
    """Drop the vectors of COLUMN, and their index; never those in service.

    Waits for the training of a vector index; refused when that goes on for too long.
    """
    _change("retire", recipe, column, as_json)


@click.command()
@recipe_argument
@click.option("--now", is_flag=True, help="Switch first; embed rows that came since afterwards.")
@json_option
def rollback(recipe: str, now: bool, as_json: bool) -> None:
    """Put the space back in service that was there before, in one commit.

    Rows that came since are embedded in it first. With --now they are embedded after the switch,
    and searches miss them until then. Name the old model in the recipe afterwards.
    """
    from embedding_core.runs.space.release import go_back

    loaded, settings = Recipe.load(recipe), read_settings()
    with saying_what_takes_long("rollback"):
        release = go_back(
            loaded, settings.resources, getpass.getuser(), now, settings.lock_wait_seconds
        )
    _respond_release(release, as_json)


@click.command()
@recipe_argument
@json_option
def releases(recipe: str, as_json: bool) -> None:
    """List what was promoted, rolled back, retired and refused by the gate, newest first."""
    from embedding_core.lake.ownership.owner import open_owned
    from embedding_core.lake.spaces import switching
    from embedding_core.reports.releases import ReleaseView, history_lines

    history = switching.releases(open_owned(Recipe.load(recipe)))
    data = {"releases": [ReleaseView(release).data() for release in history]}
    respond(data, history_lines(history), as_json)


def _change(action: Literal["promote", "retire"], recipe: str, column: str, as_json: bool) -> None:
    """Promote or retire the space of a column and answer with the release."""
    from embedding_core.lake.ownership.owner import open_owned
    from embedding_core.lake.spaces import switching

    wait_seconds = read_settings().lock_wait_seconds
    changes: dict[str, Callable[..., Release]]
    changes = {"promote": switching.promote, "retire": switching.retire}
    table = open_owned(Recipe.load(recipe)).table
    release = changes[action](table, column, getpass.getuser(), wait_seconds=wait_seconds)
    _respond_release(release, as_json)


def _respond_release(release: Release, as_json: bool) -> None:
    from embedding_core.reports.releases import ReleaseView

    report = ReleaseView(release)
    respond(report.data(), report.lines(), as_json)


COMMANDS: tuple[click.Command, ...] = (promote, rollback, retire, releases)
