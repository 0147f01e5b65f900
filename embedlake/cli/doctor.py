"""``embedlake doctor``: check the whole environment; each check says what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial

import click

from embedding_core.errors import EmbedlakeError
from embedding_core.recipe import Recipe
from embedding_core.reports.report import said
from embedding_core.runs.outcome import EXIT_CODES
from embedlake.cli.options import json_option, respond
from embedlake.diagnosis import installation, machine, recipe_needs, servers
from embedlake.settings import Settings, read_settings


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check."""

    name: str
    ok: bool
    detail: str
    """What was seen; for a check that failed also what to do."""


@click.command("doctor")
@click.argument("recipe", required=False)
@json_option
def check_environment(recipe: str | None, as_json: bool) -> None:
    """Check the environment; with RECIPE also its source, model, lake and the room it needs.

    Finds a wrong Python, missing extras, servers that do not answer or refuse the credentials,
    clocks that differ, a store without conditional writes, GPUs that are asked for and not there,
    too little disk, and versions that differ between this process, the Prefect server and the nodes
    of a Ray cluster. Each line says what to do.
    """
    loaded = Recipe.load(recipe) if recipe is not None else None
    checks = list(diagnose(read_settings(), loaded))
    lines = [f"{'ok  ' if check.ok else 'FAIL'}  {check.name}: {check.detail}" for check in checks]
    respond({"checks": [asdict(check) for check in checks]}, lines, as_json)
    healthy = all(check.ok for check in checks)
    raise click.exceptions.Exit(EXIT_CODES["done" if healthy else "failed"])


def diagnose(settings: Settings, recipe: Recipe | None) -> Iterator[Check]:
    """Check this environment, and with a recipe also what it needs."""
    yield _try("python", installation.check_python)
    yield _try("packages", installation.check_packages)
    yield _try("plugins", installation.check_plugins)
    yield _try("processor", partial(machine.check_processor, settings))
    yield _try("folders", partial(machine.check_folders, settings))
    yield _try("prefect", partial(servers.check_prefect, settings))
    yield _try("ray", partial(servers.check_ray, settings))
    dates: dict[str, Callable[[], str | None]] = {
        "the Prefect API": partial(servers.api_date, settings)
    }
    if recipe is not None:
        dates.update(recipe_needs.dates(recipe))
    yield _try("clock", partial(machine.check_clock, dates))
    if recipe is not None:
        yield _try("source", partial(recipe_needs.check_source, recipe))
        yield _try("model", partial(recipe_needs.check_model, recipe))
        yield _try("lake", partial(recipe_needs.check_lake, recipe))
        yield _try("room", partial(recipe_needs.check_room, recipe))


def _try(name: str, check: Callable[[], str]) -> Check:
    try:
        return Check(name, True, check())
    except (EmbedlakeError, ImportError, OSError) as error:
        return Check(name, False, said(error))


COMMANDS: tuple[click.Command, ...] = (check_environment,)
