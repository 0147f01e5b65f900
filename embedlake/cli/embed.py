"""Commands that fill the table: ``plan``, ``embed``, ``retry-rejected``; ``bench`` for plans."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click

from embedding_core.errors import UsageError
from embedding_core.reasons import HEALED_ELSEWHERE
from embedding_core.recipe import ModelSpec, Recipe, Resources
from embedding_core.recipe.paths import kind_of
from embedding_core.runs.outcome import EXIT_CODES
from embedlake.cli.exchange.export import FollowingExport
from embedlake.cli.options import (
    json_option,
    model_section,
    pair,
    reachable_api,
    recipe_argument,
    requested_resources,
    respond,
    respond_and_exit,
    run_flow,
    say,
    saying_what_takes_long,
    set_option,
    use_or_start_api,
)
from embedlake.settings import Settings, read_settings

EXPORTED_AFTER = (EXIT_CODES["done"], EXIT_CODES["rejected"])
"""Exit codes of runs that an export follows: the table is as the source says."""


@click.command("plan")
@recipe_argument
@json_option
def show_plan(recipe: str, as_json: bool) -> None:
    """Show what a run would do; change nothing.

    Where the recipe chooses among documents, says how many files a run reads first to choose, and
    how many documents are left out.
    """
    from embedding_core.reports.plan import PlanView
    from embedding_core.runs.embed.planning import plan
    from embedding_core.runs.serving import following
    from embedlake.local import speeds

    settings = read_settings()
    loaded = following(Recipe.load(recipe))
    planned = speeds.estimated(plan(loaded), loaded, settings.resources, settings)
    report = PlanView(planned, speeds.cost(planned.estimated_seconds, settings))
    respond(report.data(), report.lines(), as_json)


@click.command()
@recipe_argument
@click.option(
    "--seconds",
    type=click.FloatRange(min=0.1),
    default=5.0,
    show_default=True,
    help="Time for each workload and token budget.",
)
@click.option(
    "--engine",
    "engines",
    multiple=True,
    metavar="MODEL",
    help="Compare with this engine: a server's URL, another model, or a model section as JSON; may "
    "be repeated.",
)
@json_option
def bench(recipe: str, seconds: float, engines: Sequence[str], as_json: bool) -> None:
    """Measure the recipe's model on this machine and suggest a token budget.

    With --engine, and for a model behind a server, measures tokens per second of each engine on
    the same texts. Later plans use the rate for their estimates; EMBEDLAKE_PRICE_PER_HOUR adds
    costs.
    """
    from embedding_core.encoder.engines import describe_model
    from embedding_core.identity import space_id
    from embedding_core.reports.speeds.speed import SpeedView
    from embedding_core.runs.model_speed import measure
    from embedding_core.runs.serving import is_endpoint
    from embedlake.local import speeds

    settings, loaded = read_settings(), Recipe.load(recipe)
    if engines or is_endpoint(loaded.model):
        _compare_engines(loaded, settings, engines, seconds, as_json)
        return
    with saying_what_takes_long("bench"):
        speed = measure(loaded, settings.resources, seconds)
    space = describe_model(loaded.model).space
    speeds.keep(settings, space_id(space), speed.tokens_per_second)
    report = SpeedView(speed, speeds.cost(1_000_000 / speed.tokens_per_second, settings))
    respond(report.data(), report.lines(), as_json)


def _compare_engines(
    recipe: Recipe, settings: Settings, engines: Sequence[str], seconds: float, as_json: bool
) -> None:
    from embedding_core.reports.speeds.engine_rates import EngineRatesView
    from embedding_core.runs.model_speed import compare
    from embedlake.local import speeds

    sections = [_engine_section(recipe.model, text) for text in engines]
    models = [recipe.with_model(section).model for section in sections]
    with saying_what_takes_long("bench"):
        comparison = compare(recipe, models, settings.resources, seconds)
    first = comparison.engines[0]
    speeds.keep(settings, first.space_id, first.tokens_per_second)
    report = EngineRatesView(comparison, lambda seconds: speeds.cost(seconds, settings))
    respond(report.data(), report.lines(), as_json)


def _engine_section(recipe_model: ModelSpec, text: str) -> str | dict[str, Any] | None:
    """What ``--engine`` names. A server counts with the tokenizer of the recipe's model, unless its
    section says otherwise: engines are compared on the same model."""
    section = model_section(text)
    if not isinstance(section, str) or kind_of(section) != "endpoint":
        return section
    return {"name": section, "tokenizer": recipe_model.tokenizer or recipe_model.name}


@click.command("embed")
@recipe_argument
@set_option
@click.option(
    "--allow-removals",
    is_flag=True,
    help="Remove files even when more left the source than the recipe's max_removed_share.",
)
@click.option(
    "--then",
    metavar="export='DEST --to FORMAT …'",
    help="Export the table when the run has ended well, over the export that is at DEST.",
)
@json_option
def embed_source(
    recipe: str, changes: Sequence[str], allow_removals: bool, then: str | None, as_json: bool
) -> None:
    """Make the table say what the source says.

    Runs on the Prefect API in PREFECT_API_URL, or on that of `embedlake up`. When there is neither
    and there is something to do, starts one for the time of the run.
    """
    following_export = None if then is None else _following_export(recipe, then)
    report = _embed(recipe, changes, _RunOptions(allow_removals))
    lines = [report["summary"]]
    if following_export is not None and report["exit_code"] in EXPORTED_AFTER:
        say(lines)  # before an export that may fail
        report["export"] = following_export.run()
        lines.append(report["export"]["summary"])
    respond_and_exit(report, lines, as_json)


@click.command("retry-rejected")
@recipe_argument
@click.option(
    "--reason",
    "reasons",
    multiple=True,
    metavar="REASON",
    default=HEALED_ELSEWHERE,
    show_default=True,
    help="Work again on files with rejects of this reason; may be repeated.",
)
@set_option
@json_option
def retry_rejected(
    recipe: str, reasons: Sequence[str], changes: Sequence[str], as_json: bool
) -> None:
    """Read files with rejects again and embed what now works.

    Like `embed`, but the plan also has unchanged files whose rejects had a cause outside the file.
    Vectors that such a file has are kept.
    """
    report = _embed(recipe, changes, _RunOptions(retry_reasons=tuple(reasons)))
    respond_and_exit(report, [report["summary"]], as_json)


@dataclass(frozen=True, slots=True)
class _RunOptions:
    """What a run may do, beside the recipe."""

    allow_removals: bool = False
    retry_reasons: tuple[str, ...] = ()


def _following_export(recipe: str, then: str) -> FollowingExport:
    step, written = pair(then)
    if step != "export":
        raise UsageError(f"--then {step!r} is no step; write export='DEST --to FORMAT'")
    return FollowingExport(recipe, written)


def _embed(recipe: str, changes: Sequence[str], options: _RunOptions) -> dict[str, Any]:
    """Run the recipe; the report as data."""
    settings = read_settings()
    parameter = requested_resources(settings, changes)
    resources = settings.resources.updated(parameter)
    loaded = Recipe.load(recipe)  # a wrong recipe does not wait for a server
    report = None
    if reachable_api(settings) is None:
        report = _report_of_nothing(loaded, resources, options)
    if report is None:
        use_or_start_api(settings)
        report = run_flow(
            "embedlake.flows.embed:embed",
            recipe,
            parameter,
            options.allow_removals,
            list(options.retry_reasons),
        )
    return report


def _report_of_nothing(
    recipe: Recipe, resources: Resources, options: _RunOptions
) -> dict[str, Any] | None:
    """Report a run with an empty plan, which needs no server; None when there is work to do."""
    from embedding_core.reports.plan import PlanView
    from embedding_core.reports.run import RunView
    from embedding_core.runs.embed.finish_stage import RunTally, finish
    from embedding_core.runs.embed.planning import PlanBasis, check_removals
    from embedding_core.runs.job import Job

    started = time.perf_counter()
    basis = PlanBasis.now(recipe, options.retry_reasons, before_a_run=True)
    planned = basis.plan()
    check_removals(planned, options.allow_removals)
    if not planned.is_empty:
        return None
    say(PlanView(planned).lines())
    job = Job.of(planned, basis.recipe, resources, run_id="")
    return RunView(finish(job, planned, RunTally(), started)).data()


COMMANDS: tuple[click.Command, ...] = (show_plan, bench, embed_source, retry_rejected)
