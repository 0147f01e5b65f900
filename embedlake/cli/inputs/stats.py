"""``embedlake stats``: what a corpus holds, before it is embedded and after."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from embedding_core.errors import UsageError
from embedding_core.recipe import Recipe
from embedlake.cli.options import (
    check_picture,
    json_option,
    recipe_argument,
    respond,
    saying_what_takes_long,
)
from embedlake.settings import read_settings

if TYPE_CHECKING:  # loads numpy
    from embedding_core.runs.inputs.tallies import Statistics

PICTURES = (".svg", ".png")


@click.command("stats")
@recipe_argument
@click.option(
    "--by",
    default="file",
    show_default=True,
    metavar="FIELD",
    help="Figures per file, folder, or value of a metadata column.",
)
@click.option(
    "--sample",
    "n_records",
    type=click.IntRange(min=1),
    metavar="N",
    help="Read N records at most, the first of files spread evenly over the source.",
)
@click.option(
    "--files",
    "n_files",
    type=click.IntRange(min=1),
    metavar="N",
    help="Read N files at most, spread evenly over the source.",
)
@click.option("--table", "of_table", is_flag=True, help="Count the table instead of the source.")
@click.option(
    "--languages",
    "with_languages",
    is_flag=True,
    help="Tell each document's language; needs the extra `languages`.",
)
@click.option(
    "--picture",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Draw lengths and groups into this file, .svg or .png.",
)
@json_option
def show_statistics(
    recipe: str, by: str, n_records: int | None, n_files: int | None, of_table: bool,
    with_languages: bool, picture: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Count documents, chunks and tokens, how long they are, what is left out and what repeats.

    Reads and cuts the source as a run would, on Ray when there is much to read, and embeds nothing.
    """
    from embedding_core.reports.inputs.statistics import StatisticsView
    from embedding_core.runs.inputs.table_counting import count_table

    loaded = Recipe.load(recipe)
    if picture is not None and picture.suffix not in PICTURES:
        raise UsageError(
            f"{picture} is no picture; give a name that ends with {' or '.join(PICTURES)}"
        )
    check_picture(picture)
    if of_table and (with_languages or n_records is not None or n_files is not None):
        raise UsageError(
            "--table counts every row and reads no text; leave out --sample, --files, --languages"
        )
    with saying_what_takes_long("stats"):
        if of_table:
            statistics = count_table(loaded, by)
        else:
            statistics = _count_source(loaded, by, _Sample(n_files, n_records), with_languages)
    if picture is not None:
        from embedding_core.reports.inputs.corpus_picture import write_corpus_picture

        write_corpus_picture(statistics, picture)
    report = StatisticsView(statistics)
    respond(report.data(), report.lines(), as_json)


@dataclass(frozen=True, slots=True)
class _Sample:
    """What is read at most; None: everything."""

    files: int | None
    records: int | None


def _count_source(recipe: Recipe, by: str, sample: _Sample, with_languages: bool) -> Statistics:
    from embedding_core.runs.inputs.counting import Counting, count_unit, sampled, units
    from embedding_core.runs.inputs.languages import check_library
    from embedding_core.runs.inputs.opening import reading_job
    from embedding_core.runs.inputs.tallies import Grouping, Groups, Statistics
    from embedding_core.sources import discover
    from embedlake.execution.pool import each_in_pool
    from embedlake.local.small_work import is_little_to_read

    settings, grouping = read_settings(), Grouping.of(by, recipe)
    if with_languages:
        check_library()
    job, source = reading_job(recipe), discover(recipe.source)
    portions = sampled(source.files, sample.files, sample.records)
    groups = Groups()
    for counted in each_in_pool(
        count_unit,
        Counting(job, grouping, with_languages),
        units(portions, settings.resources.unit_bytes, recipe.source),
        settings,
        on_ray=not is_little_to_read(sum(portion.n_bytes for portion in portions), settings),
    ):
        groups.merge(counted)
    for reject in source.unreadable:
        groups.of(grouping.name(reject.source_uri)).reasons[reject.reason] += 1
    n_in_source = len(source.files) + len(source.unreadable)
    return Statistics.of(recipe, groups, by, len(portions), n_in_source, sample.records)


COMMANDS: tuple[click.Command, ...] = (show_statistics,)
