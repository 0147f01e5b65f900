"""Commands about new models: announce, build, judge, put in service, go back, let go."""

from __future__ import annotations

import getpass
import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from embedding_core.errors import EmbedlakeError, ModelError, SetupError, UsageError
from embedding_core.recipe import ModelSpec, Recipe, model_path
from embedlake.cli.options import (
    json_option,
    known_api,
    recipe_argument,
    resources_asked,
    respond,
    running_flow,
    saying_what_takes_long,
    set_option,
    use_some_api,
)
from embedlake.settings import read_settings, use_prefect_api

if TYPE_CHECKING:
    from embedding_core.lake.spaces.switching import Release
    from embedding_core.lake.table import Table


@click.command()
@recipe_argument
@click.option("--queries", help="JSON lines with _id and text; default: release.queries.")
@click.option("--qrels", help="TSV of query id, document id, grade; default: release.qrels.")
@click.option("--column", default="vector", show_default=True, help="Vector column to judge.")
@json_option
def evaluate(
    recipe: str, queries: str | None, qrels: str | None, column: str, as_json: bool
) -> None:
    """Score the table on labelled queries (BEIR file formats)."""
    from embedding_core.runs.space import evaluation

    loaded = Recipe.load(recipe)
    with saying_what_takes_long("evaluate"):
        found = evaluation.evaluate(loaded, read_settings().resources, queries, qrels, column)
    metrics = {name: asdict(interval) for name, interval in found.metrics.items()}
    data = asdict(found) | {"columns": {found.column: metrics}}
    del data["metrics"]
    lines = [f"{found.column}: {found.queries:,} queries, 95 % intervals"]
    lines += [
        f"  {name:<10} {one['mean']:.4f}  ({one['low']:.4f} to {one['high']:.4f})"
        for name, one in metrics.items()
    ]
    respond(data, lines, as_json)


@click.command()
@recipe_argument
@click.argument("column", metavar="COLUMN")
@click.option(
    "--picture",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    metavar="FILE",
    help="Draw intervals and scores into FILE, as SVG.",
)
@json_option
def gate(recipe: str, column: str, picture: Path | None, as_json: bool) -> None:
    """Judge the space of COLUMN against the one in service: yes, or no with exit code 4.

    Both are asked the same queries by exact search: those of the recipe's release section, or,
    when it names none, queries made from the table's own rows. Changes nothing.
    """
    from embedding_core.reports.gate import gate_data, gate_lines, write_picture
    from embedding_core.runs.space import release_gate

    if picture is not None and not picture.absolute().parent.is_dir():
        raise UsageError(f"there is no folder for the picture {picture}; make it first")
    with saying_what_takes_long("gate"):
        report = release_gate.gate(Recipe.load(recipe), read_settings().resources, column)
    if picture is not None:
        write_picture(report, picture)
    respond(gate_data(report), gate_lines(report), as_json)
    raise click.exceptions.Exit(report.exit_code)


@click.command()
@recipe_argument
@click.option(
    "--model", help="The new model: a name, or a model section as JSON; default: the recipe's."
)
@click.option(
    "--promote",
    "promotion",
    type=click.Choice(["auto", "never", "force"]),
    default="auto",
    show_default=True,
    help="Put it in service when the gate says yes; never; or whatever the gate says.",
)
@click.option(
    "--sample",
    callback=lambda _context, _option, given: _share(given),
    metavar="SHARE",
    help="Embed and judge this share of the rows first (5% or 0.05); stop there when it is a no.",
)
@set_option
@json_option
def reembed(
    recipe: str, model: str | None, promotion: str, sample: float | None, changes: Sequence[str],
    as_json: bool,
) -> None:  # fmt: skip
    """Give the table the vectors of another model: build, judge, put in service.

    The vectors in service stay until the new ones are complete and the gate says yes; on a no the
    exit code is 4. A run that was cut off is gone on with by the same command. Takes the Prefect
    API like `embed`.
    """
    settings = read_settings()
    wanted = _model_given(model)
    Recipe.load(recipe).with_model(wanted)  # a wrong recipe does not wait for a server
    resources = resources_asked(settings, changes)
    use_some_api(settings)
    report = _run_reembed(recipe, wanted, promotion, sample, resources)
    respond(report, [report["summary"]], as_json)
    raise click.exceptions.Exit(report["exit_code"])


def _run_reembed(*given: Any) -> dict[str, Any]:
    """Run the flow in this process; its log goes to stderr."""
    from embedlake.flows.reembed import reembed as reembed_flow
    from embedlake.orchestration.outcome import report_of

    with running_flow():
        return report_of(reembed_flow(*given, return_state=True))


@click.command("announce-model")
@click.argument("uri", metavar="URI")
@click.option(
    "--for",
    "name",
    callback=lambda _context, _option, given: _listener(given),
    metavar="NAME",
    help="To deployments that listen to NAME alone.",
)
@click.option(
    "--unchecked",
    is_flag=True,
    help="Announce it without a look at it: only the workers can reach it.",
)
@json_option
def announce_model(uri: str, name: str | None, unchecked: bool, as_json: bool) -> None:
    """Say that the model at URI is ready: deployments that listen re-embed their tables with it.

    Sends the event `model.finetuned` to the Prefect API that is named or that `embedlake up`
    started, once the model was found and its checkpoint can be read.
    """
    if not uri.strip():
        raise UsageError("there is no model to announce; give its name or URI")
    if (url := known_api(read_settings())) is None:
        raise SetupError(
            "there is no Prefect API to tell; name one with PREFECT_API_URL, or run `embedlake up`"
        )
    model = model_path(uri, Path.cwd())
    if not unchecked:
        _check_announced(model)
    use_prefect_api(url)
    from embedlake.orchestration.events import announce

    told = announce(model, name)
    lines = [f"{told.event}: {told.model} (to {told.resource}, event {told.id})"]
    respond(asdict(told), lines, as_json)


def _check_announced(model: str) -> None:
    """Raise ``ModelError`` unless the model is found and described; a recipe may allow what is not
    verified."""
    from embedding_core.runs.job import resolve

    try:
        resolve(ModelSpec(name=model, allow_unverified=True))
    except EmbedlakeError as error:
        raise ModelError(
            f"{error}. Nothing was announced; when only the workers can reach the model, announce "
            "it with --unchecked"
        ) from error


def _listener(name: str | None) -> str | None:
    """A name that a trigger can match: in triggers ``*`` and ``!`` mean something."""
    if name is not None and not re.fullmatch(r"[\w.-]+", name):
        raise click.BadParameter(f"{name!r} is no name; use letters, digits, '_', '-' and dots")
    return name


def _model_given(text: str | None) -> str | dict[str, Any] | None:
    """A name or a section, with paths that lead from here made absolute."""
    if text is None:
        return None
    if not text.startswith("{"):
        return model_path(text, Path.cwd())
    try:
        section: dict[str, Any] = json.loads(text)
    except ValueError as error:
        raise UsageError(f"--model is not JSON: {error}; give a name or a model section") from error
    paths = {
        field: model_path(section[field], Path.cwd())
        for field in ("name", "adapter")
        if isinstance(section.get(field), str)
    }
    return section | paths


def _share(text: str | None) -> float | None:
    """``5%`` or ``0.05``."""
    if text is None:
        return None
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 < share <= 1:
        raise click.BadParameter(f"{text!r} is no share of the rows; write 5% or 0.05")
    return share


@click.command()
@recipe_argument
@click.argument("column", metavar="COLUMN")
@json_option
def promote(recipe: str, column: str, as_json: bool) -> None:
    """Put the space of COLUMN in service, in one commit.

    Refused while a row has no vector in it, and while a vector index is being trained. The space
    that was in service is kept in a column of its own; `embedlake rollback` goes back to it. Name
    the new model in the recipe afterwards.
    """
    from embedding_core.lake.spaces import switching

    wait = read_settings().lock_wait_seconds
    table = _released_table(recipe)
    _answer_release(switching.promote(table, column, getpass.getuser(), wait_seconds=wait), as_json)


@click.command()
@recipe_argument
@click.option("--now", is_flag=True, help="Switch first; rows that came since are embedded after.")
@json_option
def rollback(recipe: str, now: bool, as_json: bool) -> None:
    """Put the space back in service that was there before, in one commit.

    Rows that came since are embedded in it first; with --now right after the switch, and searches
    miss them until then. Name the old model in the recipe afterwards.
    """
    from embedding_core.runs.space.release import go_back

    _released_table(recipe)
    loaded, settings = Recipe.load(recipe), read_settings()
    with saying_what_takes_long("rollback"):
        release = go_back(
            loaded, settings.resources, getpass.getuser(), now, settings.lock_wait_seconds
        )
    _answer_release(release, as_json)


@click.command()
@recipe_argument
@click.argument("column", metavar="COLUMN")
@json_option
def retire(recipe: str, column: str, as_json: bool) -> None:
    """Drop the vectors of COLUMN, and their index; never those in service.

    Waits for the training of a vector index; refused when that goes on for too long.
    """
    from embedding_core.lake.spaces import switching

    wait = read_settings().lock_wait_seconds
    table = _released_table(recipe)
    _answer_release(switching.retire(table, column, getpass.getuser(), wait_seconds=wait), as_json)


@click.command()
@recipe_argument
@json_option
def releases(recipe: str, as_json: bool) -> None:
    """List what was promoted, rolled back and retired, newest first."""
    from embedding_core.lake.spaces import switching
    from embedding_core.reports.text import release_lines

    found = switching.releases(_released_table(recipe))
    respond({"releases": [asdict(one) for one in found]}, release_lines(found), as_json)


def _released_table(recipe: str) -> Table:
    from embedding_core.lake.ownership.owner import check_recipe
    from embedding_core.lake.table import Lake

    loaded = Recipe.load(recipe)
    table = Lake.open(loaded.lake.uri, loaded.lake.storage).table(loaded.lake.table)
    check_recipe(table, loaded)
    return table


def _answer_release(release: Release, as_json: bool) -> None:
    from embedding_core.reports.text import release_line

    respond(asdict(release), [release_line(release)], as_json)


COMMANDS: tuple[click.Command, ...] = (
    announce_model, reembed, evaluate, gate, promote, rollback, retire, releases,
)  # fmt: skip
