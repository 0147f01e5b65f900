"""Commands about the table as it is: ``status`` and ``maintain``; ``schema`` of a recipe."""

from __future__ import annotations

import json

import click

from embedding_core.recipe import Recipe
from embedlake.cli.options import (
    json_option,
    reachable_api,
    recipe_argument,
    respond,
    respond_and_exit,
    run_flow,
    say,
)
from embedlake.settings import read_settings, use_prefect_api

LINES_SHOWN = 20


@click.command()
@recipe_argument
@click.option("--files", "with_files", is_flag=True, help="List the files and what they gave.")
@click.option("--rejects", "with_rejects", is_flag=True, help="List what was left out, and why.")
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=LINES_SHOWN,
    show_default=True,
    help="Lines of each list at most; 0: all.",
)
@json_option
def status(recipe: str, with_files: bool, with_rejects: bool, limit: int, as_json: bool) -> None:
    """Show the table, its space, indexes, ledger, rejects and last runs."""
    from embedding_core.reports.status import StatusView
    from embedding_core.runs import table_status

    loaded, limit_or_all = Recipe.load(recipe), limit or None
    report = StatusView(
        table_status.status(loaded),
        table_status.file_lines(loaded, limit_or_all) if with_files else None,
        table_status.reject_lines(loaded, limit_or_all) if with_rejects else None,
    )
    respond(report.data(), report.lines(), as_json)


@click.command()
@recipe_argument
@json_option
def maintain(recipe: str, as_json: bool) -> None:
    """Compact the table, keep its indexes fresh, remove old versions and orphans.

    May run beside readers and embed runs. Needs no Prefect API, but reports to one that is named
    or that `embedlake up` started.
    """
    loaded = Recipe.load(recipe)  # a wrong recipe does not wait for a server
    if (url := reachable_api(read_settings())) is not None:
        use_prefect_api(url)
        data = run_flow("embedlake.flows.maintain:maintain", recipe)
    else:
        from embedding_core.reports.maintenance import MaintenanceView
        from embedding_core.runs import maintenance

        report = MaintenanceView(maintenance.maintain(loaded))
        say(report.lines())
        data = report.data()
    respond_and_exit(data, [data["summary"]], as_json)


@click.command()
@json_option
def schema(as_json: bool) -> None:
    """Print the JSON schema of a recipe, for editors to complete and check it."""
    document = Recipe.model_json_schema()
    respond(document, json.dumps(document, indent=2).splitlines(), as_json)


COMMANDS: tuple[click.Command, ...] = (status, maintain, schema)
