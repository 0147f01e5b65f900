"""``embedlake deploy``: the Prefect deployments that the package carries."""

from __future__ import annotations

from importlib.resources import files

import click
import yaml

from embedding_core.errors import UsageError
from embedlake.cli.options import json_option, respond


@click.command("deploy")
@click.option(
    "--print", "is_printed", is_flag=True, help="Write the deployments to stdout, as prefect.yaml."
)
@json_option
def print_deployments(is_printed: bool, as_json: bool) -> None:
    """Write a prefect.yaml with deployments of embed, maintain, reembed, export.

    `embedlake deploy --print > prefect.yaml`, then `prefect --no-prompt deploy --name embed` in
    the same folder. The flows are named by module, so no checkout is needed; the package must be
    installed where the worker runs.
    """
    if not is_printed:
        raise UsageError(
            "nothing was deployed; write the deployments with `embedlake deploy --print > "
            "prefect.yaml`, then run `prefect --no-prompt deploy --name embed`"
        )
    text = files("embedlake.deployments").joinpath("prefect.yaml").read_text(encoding="utf-8")
    respond(yaml.safe_load(text), text.splitlines(), as_json)


COMMANDS: tuple[click.Command, ...] = (print_deployments,)
