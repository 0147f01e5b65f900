"""What commands share: arguments and options, answers, the Prefect API, running a flow."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import click

from embedding_core.errors import SetupError, UsageError
from embedding_core.recipe import MODEL_PATHS, Resources, model_path
from embedding_core.records.scalars import finite
from embedding_core.store.retry import waited_for
from embedlake.local.folders import check_folders
from embedlake.settings import Settings, prefect_api_url, use_prefect_api
from embedlake.silence import saying_a_slow_load, saying_it_goes_on
from embedlake.terminal import harmless, harmless_line

PATIENCE_SECONDS = 15.0
"""How long to wait for a Prefect server on a busy machine; one that is gone refuses at once."""

recipe_argument = click.argument("recipe", metavar="RECIPE")
set_option = click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="NAME=VALUE",
    help=f"A resource for this run ({', '.join(Resources.model_fields)}); changes only speed.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")


def check_picture(path: Path | None) -> None:
    """Raise ``UsageError`` where no picture could be written, before the work that it shows."""
    if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
        raise UsageError(f"there is no folder for the picture {path}; make it, or name a file")


def model_section(text: str | None) -> str | dict[str, Any] | None:
    """A name or a section; relative paths are made absolute."""
    if text is None:
        return None
    if not text.startswith("{"):
        return model_path(text, Path.cwd())
    try:
        section: dict[str, Any] = json.loads(text)
    except ValueError as error:
        raise UsageError(
            f"the model section is not JSON: {error}; give a name or a model section"
        ) from error
    paths = {
        field: model_path(section[field], Path.cwd())
        for field in MODEL_PATHS
        if isinstance(section.get(field), str)
    }
    return section | paths


def respond(data: Mapping[str, Any], lines: Sequence[str], as_json: bool) -> None:
    """Print the command's result on stdout: one JSON object, or harmless lines for people."""
    if as_json:
        click.echo(json.dumps(finite(data), default=str))
    else:
        click.echo("\n".join(map(harmless_line, lines)))


def respond_and_exit(data: Mapping[str, Any], lines: Sequence[str], as_json: bool) -> NoReturn:
    """Print the result and leave with the exit code that stands in it."""
    respond(data, lines, as_json)
    raise click.exceptions.Exit(data["exit_code"])


def say(lines: Sequence[str]) -> None:
    """Talk on stderr."""
    for line in lines:
        click.echo(harmless(line), err=True)


@contextmanager
def saying_what_takes_long(command: str) -> Iterator[None]:
    """Say on stderr which model is being loaded when that takes longer than a moment, and now and
    then that the command is still working."""
    from embedding_core.runs.announce import announcing

    def say_line(line: str) -> None:
        say([line])

    with announcing(partial(saying_a_slow_load, say_line)), saying_it_goes_on(say_line, command):
        yield


def pair(text: str) -> tuple[str, str]:
    """Split ``NAME=VALUE`` into name and value. Raises ``UsageError`` for anything else."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UsageError(f"{text!r} is not NAME=VALUE")
    return name, value


def parts(texts: Sequence[str]) -> Iterator[str]:
    """The parts of an option that may be repeated and may have commas."""
    return (text.strip() for repeated in texts for text in repeated.split(","))


def requested_resources(settings: Settings, changes: Sequence[str]) -> dict[str, Any]:
    """Check what ``--set`` asks for and return it alone; the flow reads the settings itself."""
    values = dict(pair(change) for change in changes)
    return settings.resources.updated(values).model_dump(include=set(values))


def reachable_api(settings: Settings) -> str | None:
    """The Prefect API that is named or that ``embedlake up`` started; None without one.

    Raises ``SetupError`` when it does not answer.
    """
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


def use_or_start_api(settings: Settings) -> None:
    """Use the reachable Prefect API in this process; start one for its lifetime when none is."""
    check_folders(settings)
    url = reachable_api(settings)
    if url is not None:
        use_prefect_api(url)
        return
    from embedlake.local.stack import server_for_this_process

    say(["no Prefect API named: starting one for this run (`embedlake up` keeps one)"])
    with saying_it_goes_on(lambda line: say([line]), "starting a Prefect server"):
        url = server_for_this_process(settings)
    use_prefect_api(url, for_this_run=True)


def run_flow(entrypoint: str, *arguments: Any) -> dict[str, Any]:
    """Run a flow in this process and return its report as data.

    ``entrypoint`` is ``"package.module:function"``; the import loads Prefect. The flow's log and
    what Ray prints go to stderr. A flow that failed with a report raises nothing, since its report
    has the exit code; any other error is raised.
    """
    from embedlake.orchestration.outcome import report_of

    module, _, name = entrypoint.partition(":")
    flow = getattr(import_module(module), name)
    with redirect_stdout(sys.stderr), waited_for(by_a_person=False):
        return report_of(flow(*arguments, return_state=True))
