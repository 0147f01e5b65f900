"""``embedlake deploy``: a recipe's deployments in Prefect, as the file beside it says."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import click
import yaml

from embedding_core.errors import SetupError, UsageError
from embedding_core.plurals import counted
from embedding_core.recipe import Recipe
from embedlake.cli.options import json_option, reachable_api, respond, say
from embedlake.settings import read_settings, use_prefect_api


@click.command("deploy")
@click.argument("recipe", metavar="RECIPE", required=False)
@click.option(
    "--file",
    "path",
    metavar="PATH",
    help="The file that says how; default: articles.deploy.yaml beside articles.yaml, if there.",
)
@click.option("--plan", "only_plan", is_flag=True, help="Say what would change; change nothing.")
@click.option(
    "--print",
    "is_printed",
    is_flag=True,
    help="Write a prefect.yaml with deployments that no recipe owns; takes no RECIPE.",
)
@json_option
def deploy(
    recipe: str | None, path: str | None, only_plan: bool, is_printed: bool, as_json: bool
) -> None:
    """Create or update the deployments of RECIPE, one for each flow.

    The flows are embed, reembed, evaluate, maintain, export and report. Schedules, triggers,
    parameters, limits, tags, the work pool, its job variables and automations come from the file
    beside the recipe. What changes is said first; deployments, schedules and automations that the
    file no longer has are removed, if this command made them. Run it again and nothing changes.
    """
    if is_printed:
        _print_deployments(as_json)
        return
    if recipe is None:
        raise UsageError(
            "no recipe is named; write `embedlake deploy recipe.yaml`, or `embedlake deploy "
            "--print` for a prefect.yaml of your own"
        )
    respond(*_deployed(recipe, path, only_plan, as_json), as_json)


def _deployed(
    source: str, path: str | None, only_plan: bool, as_json: bool
) -> tuple[dict[str, Any], list[str]]:
    """Compare, say what changes, and, unless it is only a plan, do it."""
    from embedlake.deploying.deploy_file import read_deploy_file

    recipe, file = Recipe.load(source), read_deploy_file(source, path)
    api = reachable_api(read_settings())
    if api is None:
        raise SetupError(
            "no Prefect API is named to deploy to; run `embedlake up` or set PREFECT_API_URL"
        )
    use_prefect_api(api)
    from prefect.client.orchestration import get_client

    from embedlake.deploying import server
    from embedlake.deploying.desired import desired_items, owner_tag
    from embedlake.deploying.items import changes
    from embedlake.deploying.pools import template_of

    with get_client(sync_client=True) as client:
        pool = server.work_pool(client, file.pool.name)
        template = template_of(file.pool, pool)
        block = server.block_id(client, file.automations.notify)
        desired = desired_items(source, recipe, file, template, block)
        existing = server.existing_items(client, recipe.name, owner_tag(recipe), pool)
        todo = changes(existing, desired)
        lines = [line for change in todo for line in change.lines()]
        if todo and not (only_plan or as_json):
            say(lines)
        if not only_plan:
            server.apply(client, todo, template)
    data = {
        "api_url": api,
        "applied": not only_plan,
        "changes": [change.data() for change in todo],
        "deployments": [item.name for item in desired if item.kind == "deployment"],
    }
    if only_plan and todo:
        return data, [*lines, f"{counted(len(todo), 'change')}; run it without --plan to make them"]
    return data, [f"{counted(len(todo), 'change')} made" if todo else "nothing to change"]


def _print_deployments(as_json: bool) -> None:
    text = files("embedlake.deployments").joinpath("prefect.yaml").read_text(encoding="utf-8")
    respond(yaml.safe_load(text), text.splitlines(), as_json)


COMMANDS: tuple[click.Command, ...] = (deploy,)
