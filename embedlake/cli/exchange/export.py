"""``embedlake export``: a version of a table as files for other tools."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from embedding_core.errors import UsageError
from embedding_core.exports.exporter import KNOWN_EXPORTERS
from embedding_core.recipe import Recipe
from embedlake.cli.options import (
    json_option,
    pair,
    parts,
    reachable_api,
    recipe_argument,
    respond_and_exit,
    run_flow,
    say,
    saying_what_takes_long,
    use_or_start_api,
)
from embedlake.settings import read_settings


@click.command()
@recipe_argument
@click.argument("destination", metavar="DEST")
@click.option(
    "--to",
    required=True,
    metavar="FORMAT",
    help=f"Format of the files: {', '.join(KNOWN_EXPORTERS.built_in)}.",
)
@click.option(
    "--columns",
    multiple=True,
    metavar="NAME[,NAME…]",
    help="Columns to write, in this order; default: all but vectors that are not in service.",
)
@click.option("--where", metavar="SQL", help="Rows that pass this filter alone.")
@click.option("--split-by", metavar="COLUMN", help="A folder for each value of this column.")
@click.option(
    "--shard-rows",
    type=click.IntRange(min=1),
    default=100_000,
    show_default=True,
    help="Rows of a file at most.",
)
@click.option(
    "--dtype",
    type=click.Choice(["float16", "float32"]),
    help="Type of the numbers of vectors; default: the table's.",
)
@click.option("--list", "as_list", is_flag=True, help="Vectors as lists, not of a fixed size.")
@click.option(
    "--rename", multiple=True, metavar="OLD=NEW[,…]", help="Write a column under another name."
)
@click.option("--overwrite", is_flag=True, help="Replace an export that is at DEST.")
@click.option("--resume", is_flag=True, help="Go on with an export that was cut off.")
@json_option
def export(
    recipe: str,
    destination: str,
    columns: Sequence[str],
    rename: Sequence[str],
    overwrite: bool,
    resume: bool,
    as_json: bool,
    **spec: Any,
) -> None:
    """Write the table's rows to DEST as files, with a manifest of digests.

    DEST is a local folder, s3://bucket/prefix or hf://datasets/owner/name. The rows are those of
    the table's newest version, whatever is written meanwhile, and the same version gives the same
    bytes. Large tables are written on Ray.
    """
    asked = asked_of(columns, rename, spec)
    data = export_table(recipe, destination, asked, overwrite, resume)
    respond_and_exit(data, [data["summary"]], as_json)


def asked_of(
    columns: Sequence[str], rename: Sequence[str], others: Mapping[str, Any]
) -> dict[str, Any]:
    """The options of the command as the fields of an export's spec."""
    return {
        **others,
        "columns": tuple(parts(columns)) if columns else None,
        "rename": dict(pair(text) for text in parts(rename)),
    }


def export_table(
    recipe: str, destination: str, asked: Mapping[str, Any], overwrite: bool, resume: bool
) -> dict[str, Any]:
    """Export in this process, or by the flow when there is much or a Prefect API is reachable; the
    report as data."""
    from embedding_core.exports.spec import ExportSpec
    from embedding_core.lake.ownership.owner import open_owned
    from embedding_core.reports.exchange.exported import ExportView
    from embedding_core.runs.exchange.exporting import export as export_here
    from embedding_core.runs.exchange.hub_export import export_to_hub
    from embedding_core.store import storage
    from embedlake.local.folders import export_staging
    from embedlake.local.small_work import is_little_to_export

    settings, loaded, spec = read_settings(), Recipe.load(recipe), ExportSpec.of(asked)
    snapshot = open_owned(loaded)
    is_little = is_little_to_export(snapshot.n_rows, snapshot.space()[1].dim, settings)
    if is_little and reachable_api(settings) is None:
        with saying_what_takes_long("export"):
            if storage.scheme_of(destination) == "hf":
                staging = export_staging(settings)
                done = export_to_hub(loaded, spec, destination, staging, overwrite, resume)
            else:
                done = export_here(loaded, spec, destination, overwrite, resume)
        report = ExportView(done)
        say(report.lines()[1:])
        return report.data()
    use_or_start_api(settings)
    if storage.scheme_of(destination) in ("", "file"):  # a worker has another working directory
        destination = storage.absolute(destination, Path.cwd())
    values = spec.model_dump(mode="json")
    flow = "embedlake.flows.export:export"
    return run_flow(flow, recipe, destination, values, overwrite, resume)


class FollowingExport:
    """An export that follows a run, written as an option: ``DEST --to FORMAT …``."""

    def __init__(self, recipe: str, written: str) -> None:
        """Raises ``UsageError`` for options that an export does not have."""
        from embedding_core.exports.spec import ExportSpec

        try:
            context = export.make_context("export", [recipe, *shlex.split(written)])
        except (click.ClickException, ValueError) as error:
            why = error.format_message() if isinstance(error, click.ClickException) else error
            raise UsageError(
                f"--then export={written!r} cannot be done: {why}; write what stands behind "
                "`embedlake export RECIPE`"
            ) from error
        values = context.params
        values.pop("as_json")
        self._recipe, self._destination = values.pop("recipe"), values.pop("destination")
        self._resume = values.pop("resume")
        values.pop("overwrite")
        self._asked = asked_of(values.pop("columns"), values.pop("rename"), values)
        ExportSpec.of(self._asked)

    def run(self) -> dict[str, Any]:
        """Export, over an export that is there unless ``--resume`` was written; its report."""
        return export_table(
            self._recipe, self._destination, self._asked, not self._resume, self._resume
        )


COMMANDS: tuple[click.Command, ...] = (export,)
