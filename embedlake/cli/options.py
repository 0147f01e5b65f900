"""What the commands share: their recipe, their options, how they answer, which API they use."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import partial
from typing import Any

import click

from embedding_core.errors import SetupError, UsageError
from embedding_core.recipe import Resources
from embedlake.local.folders import check_folders
from embedlake.settings import Settings, prefect_api_url, use_prefect_api
from embedlake.silence import saying_a_slow_load, saying_it_goes_on

PATIENCE_SECONDS = 15.0
"""A server on a busy machine takes its time; one that is gone is refused at once."""

CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")
"""Control characters but the tab."""

recipe_argument = click.argument("recipe", metavar="RECIPE")
set_option = click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="NAME=VALUE",
    help=f"A resource for this run ({', '.join(Resources.model_fields)}); changes only speed.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")


def respond(data: Mapping[str, Any], lines: Sequence[str], as_json: bool) -> None:
    """The command's result on stdout: one JSON object, or lines for people.

    Names and texts come from anywhere: what would move a terminal's cursor is written out.
    """
    shown = (CONTROL.sub(lambda found: repr(found.group())[1:-1], line) for line in lines)
    click.echo(json.dumps(data, default=str) if as_json else "\n".join(shown))


def say(lines: Sequence[str]) -> None:
    """Talk, on stderr."""
    for line in lines:
        click.echo(line, err=True)


@contextmanager
def saying_what_takes_long(command: str) -> Iterator[None]:
    """Say on stderr, while a command works, which model is being loaded when that takes longer than
    a moment, and now and then that the command goes on."""
    from embedding_core.runs.announce import announcing

    def say_line(line: str) -> None:
        say([line])

    with announcing(partial(saying_a_slow_load, say_line)), saying_it_goes_on(say_line, command):
        yield


@contextmanager
def running_flow() -> Iterator[None]:
    """While a flow runs, what Ray prints goes to stderr: stdout is for the result."""
    with redirect_stdout(sys.stderr):
        yield


def pair(text: str) -> tuple[str, str]:
    """The two sides of ``NAME=VALUE``. Raises ``UsageError`` for anything else."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UsageError(f"{text!r} is not NAME=VALUE")
    return name, value


def resources_asked(settings: Settings, changes: Sequence[str]) -> dict[str, Any]:
    """What ``--set`` asks for, checked; the flow takes the rest from the settings itself."""
    asked = dict(pair(change) for change in changes)
    return settings.resources.updated(asked).model_dump(include=set(asked))


def known_api(settings: Settings) -> str | None:
    """The Prefect API that is named or was started by ``embedlake up``; it must answer."""
    from embedlake.local.processes import answers
    from embedlake.local.stack import running_stack

    stack = running_stack(settings)
    url = prefect_api_url() or (stack.api_url if stack else None)
    if url is not None and not answers(f"{url}/health", PATIENCE_SECONDS):
        raise SetupError(
            f"the Prefect API {url} does not answer; start it, run `embedlake up`, or unset "
            "PREFECT_API_URL to have one started for the run"
        )
    return url


def use_some_api(settings: Settings) -> None:
    """Name the known Prefect API for this process, or one that is started for its time."""
    check_folders(settings)
    url = known_api(settings)
    if url is None:
        from embedlake.local.stack import server_for_this_process

        say(["no Prefect API named: starting one for this run (`embedlake up` keeps one)"])
        with saying_it_goes_on(lambda line: say([line]), "starting a Prefect server"):
            url = server_for_this_process(settings)
        use_prefect_api(url, for_this_run=True)
    else:
        use_prefect_api(url)
