"""``embedlake up`` and ``embedlake down``: servers on this machine."""

from __future__ import annotations

import shlex
from dataclasses import asdict

import click

from embedlake.cli.options import json_option, respond, say
from embedlake.settings import read_settings
from embedlake.silence import saying_it_goes_on


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), help="Port of the Prefect server.")
@click.option("--s3", "with_s3", is_flag=True, help="Start an S3 server too, with a bucket.")
@json_option
def up(port: int | None, with_s3: bool, as_json: bool) -> None:
    """Start a local Prefect server and worker; leave them running.

    They have the same ports every time. Prints the lines that let a shell use them.
    """
    from embedlake.local import stack

    settings = read_settings()
    with saying_it_goes_on(lambda line: say([line]), "starting the stack"):
        running = stack.up(settings, port, with_s3, lambda line: say([line]))
    environment = running.environment(settings.home)
    bucket = None if running.s3_url is None else f"s3://{stack.BUCKET}"
    lines = [
        *(f"{server.name}: {server.url or 'running'}  (log {server.log})"
          for server in running.servers),
        f"page: {running.page_url}",
        *([f"bucket: {bucket}"] if bucket is not None else []),
        *(f"export {name}={shlex.quote(value)}" for name, value in environment.items()),
    ]  # fmt: skip
    data = {
        "api_url": running.api_url,
        "page_url": running.page_url,
        "bucket": bucket,
        "environment": environment,
        "servers": [asdict(server) for server in running.servers],
    }
    respond(data, lines, as_json)


@click.command()
@json_option
def down(as_json: bool) -> None:
    """Stop what `embedlake up` started."""
    from embedlake.local import stack

    stopped = stack.down(read_settings())
    lines = [f"stopped the {server.name}" for server in stopped] or ["nothing was running"]
    respond({"stopped": [asdict(server) for server in stopped]}, lines, as_json)


COMMANDS: tuple[click.Command, ...] = (up, down)
