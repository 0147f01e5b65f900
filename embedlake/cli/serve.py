"""``embedlake serve``: a search page, an API and MCP tools for tables."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Sequence
from functools import partial

import click

from embedding_core.errors import UsageError
from embedding_core.recipe import Recipe
from embedlake import interrupts
from embedlake.cli.options import json_option, model_section, requested_resources, say, set_option
from embedlake.settings import TOKEN, read_settings
from embedlake.silence import saying_a_slow_load
from embedlake.terminal import HarmlessLines

PORT = 8765


@click.command("serve")
@click.argument("recipes", metavar="RECIPE...", nargs=-1, required=True)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=PORT,
    show_default=True,
    help="Port to listen on; 0: a free one.",
)
@click.option("--feedback", "takes_feedback", is_flag=True, help="Store what people say of hits.")
@click.option(
    "--bridge",
    "model",
    metavar="MODEL",
    help="Let a model that is not in service yet ask too, through the bridge that its sample left.",
)
@click.option(
    "--at-once",
    type=click.IntRange(min=1),
    default=256,
    show_default=True,
    help="Requests under way; further ones are asked to come again (status 429).",
)
@set_option
@json_option
def serve(
    recipes: Sequence[str], host: str, port: int, takes_feedback: bool, model: str | None,
    at_once: int, changes: Sequence[str], as_json: bool,
) -> None:  # fmt: skip
    """Serve the tables of each RECIPE: a search page, a JSON API, MCP tools.

    Reads alone, unless --feedback. Answers on this machine alone; another --host needs a token in
    EMBEDLAKE_SERVE_TOKEN. Follows promotes and rollbacks. Ctrl-C stops it.
    """
    from embedding_core.runs.announce import announcing
    from embedding_core.server.answering.limits import Limits
    from embedding_core.server.answering.service import SearchService
    from embedding_core.server.web.application import application
    from embedding_core.server.web.guard import Access
    from embedding_core.server.web.listening import (
        Server,
        address_of,
        is_loopback,
        listening_socket,
    )

    settings = read_settings()
    token = settings.serve_token.get_secret_value() if settings.serve_token else None
    if not is_loopback(host) and not token:
        raise UsageError(
            f"{host} is not this machine alone, and everybody who reaches it could ask; set a "
            f"token of your choice in {TOKEN}, or leave out --host"
        )
    resources = settings.resources.updated(requested_resources(settings, changes))
    loaded = [Recipe.load(recipe) for recipe in recipes]
    bridge_from = loaded[0].with_model(model_section(model)).model if model is not None else None
    limits = Limits(at_once=at_once)
    service = SearchService(loaded, resources, limits, takes_feedback, bridge_from)
    hosts = {host.lower(), "localhost", "127.0.0.1", "::1"} if is_loopback(host) else None
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(HarmlessLines(logging.Formatter("%(message)s")))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    with listening_socket(host, port) as listener:
        url = address_of(listener)

        def ready() -> None:
            names = ", ".join(service.tables)
            say([f"{names}: {url}", "stop with Ctrl-C"])
            if as_json:
                click.echo(json.dumps({"url": url, "tables": list(service.tables)}))

        app = application(service, Access(token, hosts))
        try:
            with announcing(partial(saying_a_slow_load, lambda line: say([line]))):
                Server(app, service.open, ready).run([listener])
        except KeyboardInterrupt as stopped:
            say(["stopped"])
            raise click.exceptions.Exit(interrupts.exit_code()) from stopped


COMMANDS: tuple[click.Command, ...] = (serve,)
