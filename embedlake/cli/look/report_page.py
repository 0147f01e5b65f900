"""``embedlake report``: a page of a table that opens offline."""

from __future__ import annotations

from pathlib import Path

import click

from embedding_core.errors import UsageError
from embedding_core.recipe import Recipe
from embedlake.cli.options import (
    json_option,
    reachable_api,
    recipe_argument,
    respond_and_exit,
    run_flow,
    say,
    saying_what_takes_long,
)
from embedlake.settings import read_settings, use_prefect_api

DEFAULT = "report.html"
column_option = click.option(
    "--column", metavar="COLUMN", help="The vectors to look at; default: those in service."
)
color_option = click.option(
    "--color",
    metavar="FIELD",
    help="Colour points by this field; default: the first with two to ten values.",
)
projection_option = click.option(
    "--projection",
    "method",
    default="pca",
    show_default=True,
    metavar="NAME",
    help="How to put vectors into a plane: pca at once; tsne and umap need extras and minutes.",
)


@click.command("report")
@recipe_argument
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    default=DEFAULT,
    show_default=True,
    metavar="FILE",
    help="The page to write.",
)
@column_option
@color_option
@projection_option
@click.option(
    "--sample",
    type=click.IntRange(min=1, max=50_000),
    default=5_000,
    show_default=True,
    metavar="N",
    help="Rows to look at, at most, spread evenly over the table.",
)
@json_option
def write_report(
    recipe: str, out: Path, column: str | None, color: str | None, method: str, sample: int,
    as_json: bool,
) -> None:  # fmt: skip
    """Write a page of the table: figures, runs, releases, a map of its vectors.

    One file that opens offline; it replaces an older page, never another file. Needs no Prefect
    API, but keeps the same figures and pictures as artifacts of one that is named or that
    `embedlake up` started.
    """
    from embedding_core.reports.pages.page import check_replaceable

    loaded, settings = Recipe.load(recipe), read_settings()
    check_file(out, loaded)
    page = str(out.absolute())
    check_replaceable(page, loaded.lake.storage)
    if (url := reachable_api(settings)) is not None:
        use_prefect_api(url)
        data = run_flow(
            "embedlake.flows.report:report", recipe, page, column, color, method, sample
        )
    else:
        from embedding_core.reports.look.overview import OverviewView
        from embedding_core.reports.pages.page import write_page
        from embedding_core.reports.pages.table_page import table_page
        from embedding_core.runs.look import overview
        from embedding_core.runs.look.vector_figures import Look

        with saying_what_takes_long("report"):
            look = Look(column, color, method, sample)
            made = overview.look_at(loaded, look, settings.price_per_hour)
        write_page(page, table_page(made), loaded.lake.storage)
        view = OverviewView(made, page)
        say(view.lines()[1:-1])
        data = view.data()
    respond_and_exit(data, [data["summary"], f"page: {data['page']}"], as_json)


def check_file(path: Path, recipe: Recipe) -> None:
    """Raise ``UsageError`` where no file could be written, before the work that goes into it, or
    where the recipe's next run would read it."""
    from embedding_core.runs.inputs.own_output import check_outside_source

    is_other = path.exists() and not path.is_file()  # a folder, a device, a pipe
    if is_other or not path.absolute().parent.is_dir():
        raise UsageError(f"{path} cannot be written: name a file in a folder that exists")
    check_outside_source(recipe, str(path.absolute()))


COMMANDS: tuple[click.Command, ...] = (write_report,)
