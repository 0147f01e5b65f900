"""``embedlake map`` and ``embedlake view``: the rows in a plane, as a file and in a viewer."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from embedding_core.errors import SetupError
from embedding_core.recipe import Recipe
from embedlake import interrupts
from embedlake.cli.look.report_page import check_file, column_option, projection_option
from embedlake.cli.options import (
    json_option,
    recipe_argument,
    respond,
    respond_and_exit,
    say,
    saying_what_takes_long,
)
from embedlake.settings import read_settings

if TYPE_CHECKING:
    from embedding_core.runs.look.placed_rows import MapReport

VIEWER = "embedding-atlas"
PORT = 5055
STDERR = 2
"""File descriptor: stdout is for the answer alone."""
fitted_option = click.option(
    "--sample",
    "n_fitted",
    type=click.IntRange(min=1, max=50_000),
    default=5_000,
    show_default=True,
    metavar="N",
    help="Rows that the plane is fitted to; all others are placed in it.",
)


@click.command("map")
@recipe_argument
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default="map.parquet",
    show_default=True,
    metavar="FILE",
    help="The Parquet file to write.",
)
@column_option
@projection_option
@fitted_option
@json_option
def write_map(
    recipe: str, out: Path, column: str | None, method: str, n_fitted: int, as_json: bool
) -> None:
    """Write every row with its place in a plane: ids, text, metadata, x and y.

    A Parquet file for embedding-atlas and other viewers; it replaces an older map, never another
    file. The same version of the table gives the
    same bytes. Large tables are placed on Ray.
    """
    from embedding_core.reports.look.placed import MapView

    report = MapView(_made(recipe, out, column, method, n_fitted))
    say(report.lines()[1:])
    data = report.data()
    respond_and_exit(data, [data["summary"]], as_json)


@click.command()
@recipe_argument
@click.option(
    "--map",
    "made",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="A file of `embedlake map`; default: makes one in EMBEDLAKE_HOME.",
)
@column_option
@projection_option
@fitted_option
@click.option("--port", type=int, default=PORT, show_default=True, help="Of the viewer's page.")
@json_option
def view(
    recipe: str, made: Path | None, column: str | None, method: str, n_fitted: int, port: int,
    as_json: bool,
) -> None:  # fmt: skip
    """Look at the table in an interactive viewer, embedding-atlas, on loopback.

    Says how to get the viewer where it is not installed. Ends with Ctrl-C.
    """
    loaded = Recipe.load(recipe)
    program = _viewer()
    if made is None:
        folder = read_settings().home / "maps"
        folder.mkdir(parents=True, exist_ok=True)
        made = folder / f"{loaded.lake.table}.parquet"
        say(["making the map"])
        _made(recipe, made, column, method, n_fitted)
    text, x, y = _named(made)
    command = [program, str(made), "--text", text, "--x", x, "--y", y]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    respond({"command": command}, [shlex.join(command)], as_json)
    with subprocess.Popen(command, stdout=STDERR) as process:
        try:
            code = process.wait()
        except BaseException:
            process.terminate()
            raise
    if code:
        raise SetupError(f"{VIEWER} ended with {code}; what it said stands above")


def _viewer() -> str:
    """Path of the viewer, beside this Python or on the PATH."""
    beside = shutil.which(VIEWER, path=str(Path(sys.executable).parent))
    program = beside or shutil.which(VIEWER)
    if program is None:
        raise SetupError(
            f"the viewer {VIEWER} is not installed; `uv tool install {VIEWER}` or `pipx install "
            f"{VIEWER}` gives it an environment of its own (about 560 MB). Or write the map by "
            f"`embedlake map RECIPE` and give it to any viewer of Parquet; a page that needs no "
            "viewer is `embedlake report RECIPE`"
        )
    return program


def _named(made: Path) -> tuple[str, str, str]:
    """Columns of the text and of the places. Raises ``SetupError`` for a file of another origin."""
    from embedding_core.runs.look.placed_rows import named_columns

    return named_columns(made)


def _made(recipe: str, out: Path, column: str | None, method: str, n_fitted: int) -> MapReport:
    from embedding_core.runs.look import placed_rows
    from embedlake.execution.pool import each_in_pool
    from embedlake.local.small_work import is_little_to_export

    started, settings, loaded = time.perf_counter(), read_settings(), Recipe.load(recipe)
    check_file(out, loaded)
    placed_rows.check_replaceable(out)
    with saying_what_takes_long("map"):
        begun = placed_rows.begin_map(loaded, method, column, n_fitted)
        dim = begun.snapshot.space(begun.job.column)[1].dim
        if is_little_to_export(begun.snapshot.n_rows, dim, settings):
            placed = placed_rows.placed_here(begun, interrupts.check)
        else:
            placed = each_in_pool(
                placed_rows.place_shard, begun.job, begun.shards, settings, on_ray=True
            )
        return placed_rows.finish_map(begun, placed, out, started)


COMMANDS: tuple[click.Command, ...] = (write_map, view)
