"""What every command of the command line shares: its recipe, its ``--json``, how it answers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import click

recipe_argument = click.argument("recipe", metavar="RECIPE")
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")


def respond(data: Mapping[str, Any], lines: Sequence[str], as_json: bool) -> None:
    """The command's result on stdout: one JSON object, or lines for people."""
    click.echo(json.dumps(data, default=str) if as_json else "\n".join(lines))


def say(lines: Sequence[str]) -> None:
    """Talk, on stderr."""
    for line in lines:
        click.echo(line, err=True)
