"""The command line: data on stdout, talk on stderr, exit codes with meaning.

0 done · 1 failed · 2 bad usage or recipe · 3 finished, but more was rejected than the recipe
tolerates · 4 the gate said no · 130 stopped by Ctrl-C · 143 stopped by SIGTERM. Heavy packages are
imported by the command that needs them.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, cast, get_args

import click

from embedding_core import __version__
from embedding_core.errors import EmbedlakeError, UsageError
from embedding_core.recipe import Recipe, Resources
from embedding_core.records import ColumnType, Scalar
from embedding_core.records.scalars import from_text
from embedlake.cli import interrupts, models, verify
from embedlake.cli.drop import drop
from embedlake.cli.options import (
    json_option,
    known_api,
    pair,
    recipe_argument,
    resources_asked,
    respond,
    running_flow,
    say,
    saying_what_takes_long,
    set_option,
    use_some_api,
)
from embedlake.settings import read_settings, use_prefect_api
from embedlake.silence import lance_environment, saying_it_goes_on

if TYPE_CHECKING:
    from embedlake.local.processes import Server

FAILED, BAD_USAGE = 1, 2
HEALING_REASONS = ("out_of_memory", "non_finite_vector", "no_wider_type")
"""Causes outside the file that pass without a change of file or recipe: another device, dtype or
batch size. Files that were unreadable or changed are tried again by every run."""
LINES_SHOWN = 20


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="embedlake")
def cli() -> None:
    """Turn files into a LanceDB table of embeddings and keep it true."""


for command in (*models.COMMANDS, *verify.COMMANDS, drop):
    cli.add_command(command)


def main() -> None:
    """Entry point of the console script."""
    os.environ.update(lance_environment())
    interrupts.handle_signals()
    try:
        with interrupts.not_mistaken():
            sys.exit(cli(standalone_mode=False))  # gives the code of an Exit, None for a plain end
    except (click.Abort, KeyboardInterrupt):
        stopped = "stopped. What was committed is kept; the same command goes on where this ended"
        say([stopped])
        _answer_error(stopped, KeyboardInterrupt)
        sys.exit(interrupts.exit_code())
    except click.ClickException as error:
        error.show()
        _answer_error(error.format_message(), UsageError)
        sys.exit(error.exit_code)
    except EmbedlakeError as error:
        _fail(error)


def _fail(error: EmbedlakeError) -> None:
    click.echo(f"embedlake: {error}", err=True)
    _answer_error(str(error), type(error))
    sys.exit(BAD_USAGE if isinstance(error, UsageError) else FAILED)


def _answer_error(message: str, kind: type[BaseException]) -> None:
    if "--json" in sys.argv:
        click.echo(json.dumps({"error": message, "kind": kind.__name__}))


@cli.command()
@recipe_argument
@json_option
def plan(recipe: str, as_json: bool) -> None:
    """Show what a run would do; change nothing."""
    from embedding_core.reports.text import counts, plan_lines
    from embedding_core.runs.embed import planning
    from embedding_core.runs.serving import following
    from embedlake.local import speeds

    settings = read_settings()
    loaded = following(Recipe.load(recipe))
    planned = speeds.estimated(planning.plan(loaded), loaded, settings.resources, settings)
    cost = speeds.cost(planned.estimated_seconds, settings)
    data = asdict(planned) | {
        "size_bytes": planned.size_bytes,
        "counts": counts(planned),
        "unchanged": planned.unchanged,
        "removes_too_much": planned.removes_too_much,
        "estimated_seconds": planned.estimated_seconds,
        "nothing_to_do": planned.is_empty,
        "estimated_cost": cost,
    }
    respond(data, plan_lines(planned, cost), as_json)


@cli.command()
@recipe_argument
@click.option(
    "--seconds",
    type=click.FloatRange(min=0.1),
    default=5.0,
    show_default=True,
    help="Time for each workload and token budget.",
)
@json_option
def bench(recipe: str, seconds: float, as_json: bool) -> None:
    """Measure the recipe's model on this machine and suggest a token budget.

    Later plans use the rate for their estimates; EMBEDLAKE_PRICE_PER_HOUR adds costs.
    """
    from embedding_core.identity import space_id
    from embedding_core.reports.text import speed_lines
    from embedding_core.runs.job import resolve
    from embedding_core.runs.model_speed import measure
    from embedlake.local import speeds

    settings, loaded = read_settings(), Recipe.load(recipe)
    with saying_what_takes_long("bench"):
        found = measure(loaded, settings.resources, seconds)
    speeds.keep(settings, space_id(resolve(loaded.model).space), found)
    cost = speeds.cost(1_000_000 / found.tokens_per_second, settings)
    data = asdict(found) | {"cost_per_million_tokens": cost}
    respond(data, speed_lines(found, cost), as_json)


@cli.command()
@recipe_argument
@set_option
@click.option(
    "--allow-removals",
    is_flag=True,
    help="Remove files even when more left the source than the recipe's max_removed_share.",
)
@json_option
def embed(recipe: str, changes: Sequence[str], allow_removals: bool, as_json: bool) -> None:
    """Make the table say what the source says.

    Runs on the Prefect API in PREFECT_API_URL, or on that of `embedlake up`; starts one for the
    time of the run when there is neither and there is something to do.
    """
    _embed(recipe, changes, _RunOptions(allow_removals), as_json)


@cli.command("retry-rejected")
@recipe_argument
@click.option(
    "--reason",
    "reasons",
    multiple=True,
    metavar="REASON",
    default=HEALING_REASONS,
    show_default=True,
    help="Work again on files with rejects of this reason; as often as needed.",
)
@set_option
@json_option
def retry_rejected(
    recipe: str, reasons: Sequence[str], changes: Sequence[str], as_json: bool
) -> None:
    """Read files with rejects again and embed what now works.

    Like `embed`, and unchanged files with rejects of causes that lie outside the file are in the
    plan too. Vectors that such a file has are kept.
    """
    _embed(recipe, changes, _RunOptions(retry_reasons=tuple(reasons)), as_json)


@dataclass(frozen=True, slots=True)
class _RunOptions:
    """What a run may do, beside the recipe."""

    allow_removals: bool = False
    retry_reasons: tuple[str, ...] = ()


def _embed(recipe: str, changes: Sequence[str], options: _RunOptions, as_json: bool) -> None:
    settings = read_settings()
    parameter = resources_asked(settings, changes)
    resources = settings.resources.updated(parameter)
    loaded = Recipe.load(recipe)  # a wrong recipe does not wait for a server
    nothing = None
    if known_api(settings) is None:
        nothing = _nothing_to_do(loaded, resources, options)
    if nothing is None:
        use_some_api(settings)
    report = nothing or _run_embed(recipe, parameter, options)
    respond(report, [report["summary"]], as_json)
    raise click.exceptions.Exit(report["exit_code"])


def _nothing_to_do(
    recipe: Recipe, resources: Resources, options: _RunOptions
) -> dict[str, Any] | None:
    """The report of a run with an empty plan, without a server; None when there is work."""
    from embedding_core.reports.text import plan_lines, report_data
    from embedding_core.runs.embed import planning
    from embedding_core.runs.embed.finish_stage import RunTally, finish
    from embedding_core.runs.embed.planning import check_removals
    from embedding_core.runs.job import Job
    from embedding_core.runs.serving import following

    started = time.perf_counter()
    recipe = following(recipe)
    planned = planning.plan(recipe, options.retry_reasons)
    check_removals(planned, options.allow_removals)
    if not planned.is_empty:
        return None
    say(plan_lines(planned))
    job = Job.of(planned, recipe, resources, "none")
    return report_data(finish(job, planned, RunTally(), started))


def _run_embed(recipe: str, resources: Mapping[str, Any], options: _RunOptions) -> dict[str, Any]:
    """Run the flow in this process; its log goes to stderr."""
    from embedlake.flows.embed import embed as embed_flow
    from embedlake.orchestration.outcome import report_of

    with running_flow():
        state = embed_flow(
            recipe,
            dict(resources),
            options.allow_removals,
            list(options.retry_reasons),
            return_state=True,
        )
    return report_of(state)


@cli.command()
@recipe_argument
@click.argument("words", required=False)
@click.option("-k", "k", type=click.IntRange(min=1), default=10, show_default=True, help="Results.")
@click.option("--where", help="SQL over the table's columns; write values as :name.")
@click.option(
    "--param",
    "params",
    multiple=True,
    metavar="NAME[:TYPE]=VALUE",
    help='Value of a :name: a JSON number, true, false, null or "text", else text, read as its '
    f"column's type; or a value of a TYPE ({', '.join(get_args(ColumnType))}).",
)
@click.option("--exact", is_flag=True, help="Compare every row, past the index.")
@click.option("--hybrid", is_flag=True, help="Fuse with a full-text search for the same words.")
@click.option(
    "--nprobes",
    type=click.IntRange(min=1),
    help="Partitions of the index to look into; default: the tuned number.",
)
@click.option("--queries", metavar="FILE", help="JSON lines with _id and text, instead of WORDS.")
@json_option
def search(
    recipe: str, words: str | None, k: int, where: str | None, params: Sequence[str], exact: bool,
    hybrid: bool, nprobes: int | None, queries: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Find the chunks nearest to WORDS, in the space in service."""
    if (words is None) == (queries is None):
        raise UsageError("say what to look for: either WORDS or --queries FILE")
    if params and where is None:
        raise UsageError("--param gives a value for the filter, and there is none; give --where")
    from embedding_core.lake.query.search import Query
    from embedding_core.reports.text import answer_lines
    from embedding_core.runs.answers import queries_from
    from embedding_core.runs.answers import search as search_table

    loaded = Recipe.load(recipe)
    values = dict(_parameter(param) for param in params)
    query = Query(k, where, values, exact, hybrid, nprobes)
    asked = queries_from(queries, loaded) if queries else {"words": words or ""}
    with saying_what_takes_long("search"):
        answers = list(search_table(loaded, read_settings().resources, asked, query))
    data = (
        {"results": [asdict(answer) for answer in answers]}
        if queries
        else {"hits": [asdict(hit) for hit in answers[0].hits]}
    )
    lines = [line for answer in answers for line in answer_lines(answer, named=bool(queries))]
    respond(data, lines, as_json)


@cli.command()
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
    from embedding_core.reports.text import file_list_lines, reject_list_lines, status_lines
    from embedding_core.runs import table_status
    from embedding_core.runs.table_status import file_lines, reject_lines

    loaded = Recipe.load(recipe)
    found = table_status.status(loaded)
    data, lines = asdict(found), status_lines(found)
    if with_files:
        files = file_lines(loaded, limit or None)
        data["file_list"] = [asdict(one) for one in files]
        lines += file_list_lines(files)
    if with_rejects:
        rejects = reject_lines(loaded, limit or None)
        data["reject_list"] = [asdict(one) for one in rejects]
        lines += reject_list_lines(rejects)
    respond(data, lines, as_json)


@cli.command()
@recipe_argument
@json_option
def maintain(recipe: str, as_json: bool) -> None:
    """Compact the table, keep its indexes fresh, remove old versions and orphans.

    May run beside readers and embed runs. Reports to the Prefect API that is named or that
    `embedlake up` started; needs none.
    """
    loaded = Recipe.load(recipe)  # a wrong recipe does not wait for a server
    if (url := known_api(read_settings())) is not None:
        use_prefect_api(url)
        report = _run_maintain(recipe)
    else:
        from embedding_core.reports.text import maintenance_data, maintenance_lines
        from embedding_core.runs import maintenance

        done = maintenance.maintain(loaded)
        say(maintenance_lines(done))
        report = maintenance_data(done)
    respond(report, [report["summary"]], as_json)
    raise click.exceptions.Exit(report["exit_code"])


def _run_maintain(recipe: str) -> dict[str, Any]:
    """Run the flow in this process; its log goes to stderr."""
    from embedlake.flows.maintain import maintain as maintain_flow
    from embedlake.orchestration.outcome import report_of

    with running_flow():
        return report_of(maintain_flow(recipe, return_state=True))


@cli.command()
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
    lines = [f"{one.name}: {one.url or 'running'}  (log {one.log})" for one in running.servers]
    lines.append(f"page: {running.page_url}")
    if running.s3_url is not None:
        lines.append(f"bucket: s3://{stack.BUCKET}")
    lines += [f"export {name}={shlex.quote(value)}" for name, value in environment.items()]
    data = {
        "api_url": running.api_url,
        "page_url": running.page_url,
        "bucket": None if running.s3_url is None else f"s3://{stack.BUCKET}",
        "environment": environment,
        "servers": _servers(running.servers),
    }
    respond(data, lines, as_json)


@cli.command()
@json_option
def down(as_json: bool) -> None:
    """Stop what `embedlake up` started."""
    from embedlake.local import stack

    stopped = stack.down(read_settings())
    lines = [f"stopped the {one.name}" for one in stopped] or ["nothing was running"]
    respond({"stopped": _servers(stopped)}, lines, as_json)


@cli.command()
@click.argument("recipe", required=False)
@json_option
def doctor(recipe: str | None, as_json: bool) -> None:
    """Check the environment; with RECIPE also its source, model and lake."""
    from embedlake.cli.doctor import diagnose

    loaded = Recipe.load(recipe) if recipe is not None else None
    checks = list(diagnose(read_settings(), loaded))
    lines = [f"{'ok  ' if one.ok else 'FAIL'}  {one.name}: {one.detail}" for one in checks]
    respond({"checks": [asdict(one) for one in checks]}, lines, as_json)
    raise click.exceptions.Exit(0 if all(one.ok for one in checks) else FAILED)


@cli.command()
@json_option
def schema(as_json: bool) -> None:
    """Print the JSON schema of a recipe, for editors to complete and check it."""
    document = Recipe.model_json_schema()
    respond(document, json.dumps(document, indent=2).splitlines(), as_json)


def _parameter(text: str) -> tuple[str, Scalar]:
    """Name and value of ``NAME=VALUE`` or ``NAME:TYPE=VALUE``."""
    name, value = pair(text)
    name, colon, declared = name.partition(":")
    if not colon:
        return name, _scalar(value)
    if declared not in get_args(ColumnType):
        known = ", ".join(get_args(ColumnType))
        raise UsageError(f"--param {text!r}: no type {declared!r}; the types are {known}")
    try:
        return name, from_text(value, cast("ColumnType", declared))
    except ValueError as error:
        raise UsageError(f"--param {text!r}: {error}") from error


def _scalar(text: str) -> Scalar:
    """A JSON scalar when it reads as one, else the text itself: 7 is a number, "7" is text."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, (str, int, float, bool)) or value is None else text


def _servers(servers: Sequence[Server]) -> list[dict[str, Any]]:
    return [asdict(server) for server in servers]
