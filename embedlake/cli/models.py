"""Commands about new models: ``announce-model``, ``reembed``, ``evaluate``, ``gate``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from embedding_core.errors import EmbedlakeError, ModelError, SetupError, UsageError
from embedding_core.recipe import ModelSpec, Recipe, model_path
from embedlake.cli.options import (
    check_picture,
    json_option,
    model_section,
    reachable_api,
    recipe_argument,
    requested_resources,
    respond,
    respond_and_exit,
    run_flow,
    saying_what_takes_long,
    set_option,
    use_or_start_api,
)
from embedlake.settings import read_settings, use_prefect_api


@click.command()
@recipe_argument
@click.option(
    "--queries", metavar="FILE", help="JSON lines with _id and text; default: release.queries."
)
@click.option(
    "--qrels", metavar="FILE", help="TSV of query id, document id, grade; default: release.qrels."
)
@click.option("--column", default="vector", show_default=True, help="Vector column to judge.")
@json_option
def evaluate(
    recipe: str, queries: str | None, qrels: str | None, column: str, as_json: bool
) -> None:
    """Score the table on labelled queries (BEIR file formats)."""
    from embedding_core.reports.evaluation import EvaluationView
    from embedding_core.runs.space import evaluation

    loaded = Recipe.load(recipe)
    with saying_what_takes_long("evaluate"):
        scores = evaluation.evaluate(loaded, read_settings().resources, queries, qrels, column)
    report = EvaluationView(scores)
    respond(report.data(), report.lines(), as_json)


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
    when it names none, queries made from the table's rows. Changes nothing.
    """
    from embedding_core.reports.gate import GateView
    from embedding_core.runs.space import release_gate

    check_picture(picture)
    with saying_what_takes_long("gate"):
        judged = release_gate.gate(Recipe.load(recipe), read_settings().resources, column)
    if picture is not None:
        from embedding_core.reports.picture import write_picture

        write_picture(judged, picture)
    report = GateView(judged)
    respond_and_exit(report.data(), report.lines(), as_json)


def _share(_context: click.Context, _option: click.Parameter, text: str | None) -> float | None:
    """Read ``5%`` or ``0.05``."""
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
    callback=_share,
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
    exit code is 4. Run the same command again to resume an interrupted run. Takes the Prefect API
    like `embed`.
    """
    settings = read_settings()
    section = model_section(model)
    Recipe.load(recipe).with_model(section)  # a wrong recipe does not wait for a server
    resources = requested_resources(settings, changes)
    use_or_start_api(settings)
    report = run_flow(
        "embedlake.flows.reembed:reembed", recipe, section, promotion, sample, resources
    )
    respond_and_exit(report, [report["summary"]], as_json)


def _listener(_context: click.Context, _option: click.Parameter, name: str | None) -> str | None:
    """Check that a trigger can match the name: in triggers ``*`` and ``!`` mean something."""
    if name is not None and not re.fullmatch(r"[\w.-]+", name):
        raise click.BadParameter(f"{name!r} is no name; use letters, digits, '_', '-' and dots")
    return name


@click.command("announce-model")
@click.argument("uri", metavar="URI")
@click.option(
    "--for",
    "name",
    callback=_listener,
    metavar="NAME",
    help="Announce it only to deployments that listen to NAME.",
)
@click.option(
    "--unchecked",
    is_flag=True,
    help="Announce it without looking for it, when only the workers can reach it.",
)
@json_option
def announce_model(uri: str, name: str | None, unchecked: bool, as_json: bool) -> None:
    """Say that the model at URI is ready: deployments that listen re-embed their tables with it.

    Finds the model and reads its checkpoint, then sends the event `model.finetuned` to the Prefect
    API that is named or that `embedlake up` started.
    """
    if not uri.strip():
        raise UsageError("there is no model to announce; give its name or URI")
    if (url := reachable_api(read_settings())) is None:
        raise SetupError(
            "there is no Prefect API to tell; name one with PREFECT_API_URL, or run `embedlake up`"
        )
    model = model_path(uri, Path.cwd())
    if not unchecked:
        check_announced(model)
    use_prefect_api(url)
    from embedlake.orchestration.events import announce

    with saying_what_takes_long("announce-model"):
        event = announce(model, name)
    lines = [f"{event.event}: {event.model} (to {event.resource}, event {event.id})"]
    respond(asdict(event), lines, as_json)


def check_announced(model: str) -> None:
    """Raise ``ModelError`` unless the model can be found and described.

    The code of an unverified checkpoint is not refused here: a recipe may allow it.
    """
    from embedding_core.encoder.engines import describe_model

    try:
        describe_model(ModelSpec(name=model, allow_unverified=True))
    except EmbedlakeError as error:
        raise ModelError(
            f"{error}. Nothing was announced; when only the workers can reach the model, announce "
            "it with --unchecked"
        ) from error


COMMANDS: tuple[click.Command, ...] = (announce_model, reembed, evaluate, gate)
