"""``embedlake search``: ask the table for the chunks nearest to a text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import cast, get_args

import click

from embedding_core.errors import UsageError
from embedding_core.recipe import Recipe
from embedding_core.records import ColumnType, Scalar
from embedding_core.records.scalars import from_text
from embedlake.cli.options import (
    json_option,
    model_section,
    pair,
    recipe_argument,
    respond,
    saying_what_takes_long,
)
from embedlake.settings import read_settings

TYPES = ", ".join(get_args(ColumnType))


@click.command("search")
@recipe_argument
@click.argument("words", required=False)
@click.option("-k", "k", type=click.IntRange(min=1), default=10, show_default=True, help="Results.")
@click.option("--where", metavar="SQL", help="SQL over the table's columns; write values as :name.")
@click.option(
    "--param",
    "params",
    multiple=True,
    metavar="NAME[:TYPE]=VALUE",
    help='Value of a :name: a JSON number, true, false, null or "text", else text, read as its '
    f"column's type; or a value of a TYPE ({TYPES}).",
)
@click.option("--exact", is_flag=True, help="Compare every row, past the index.")
@click.option("--hybrid", is_flag=True, help="Fuse with a full-text search for the same words.")
@click.option(
    "--nprobes",
    type=click.IntRange(min=1),
    help="Partitions of the index to look into; default: the tuned number.",
)
@click.option("--queries", metavar="FILE", help="JSON lines with _id and text, instead of WORDS.")
@click.option(
    "--bridge",
    "model",
    metavar="MODEL",
    help="Ask with a model that is not in service yet, through the bridge that its sample left.",
)
@json_option
def search_table(
    recipe: str, words: str | None, k: int, where: str | None, params: Sequence[str], exact: bool,
    hybrid: bool, nprobes: int | None, queries: str | None, model: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Find the chunks nearest to WORDS, in the space in service."""
    if (words is None) == (queries is None):
        raise UsageError("say what to look for: either WORDS or --queries FILE")
    if params and where is None:
        raise UsageError("--param gives a value for the filter, and there is none; give --where")
    from embedding_core.lake.query.search import Query
    from embedding_core.quality.labels import queries_from
    from embedding_core.reports.answers import AnswerView
    from embedding_core.runs.answers import search

    loaded = Recipe.load(recipe)
    values = dict(_parameter(param) for param in params)
    query = Query(k, where, values, exact, hybrid, nprobes)
    texts = queries_from(queries, loaded) if queries else {"words": words or ""}
    with saying_what_takes_long("search"):
        bridge_from = loaded.with_model(model_section(model)).model if model is not None else None
        answers = list(search(loaded, read_settings().resources, texts, query, bridge_from))
    reports = [AnswerView(answer, with_query=bool(queries)) for answer in answers]
    results = [report.data() for report in reports]
    data = {"results": results} if queries else {"hits": results[0]["hits"]}
    respond(data, [line for report in reports for line in report.lines()], as_json)


def _parameter(text: str) -> tuple[str, Scalar]:
    """Name and value of ``NAME=VALUE`` or ``NAME:TYPE=VALUE``."""
    name, value = pair(text)
    name, colon, declared = name.partition(":")
    if not colon:
        return name, _scalar(value)
    if declared not in get_args(ColumnType):
        raise UsageError(f"--param {text!r}: no type {declared!r}; the types are {TYPES}")
    try:
        return name, from_text(value, cast("ColumnType", declared))
    except ValueError as error:
        raise UsageError(f"--param {text!r}: {error}") from error


def _scalar(text: str) -> Scalar:
    """A JSON scalar when it reads as such, else the text itself: 7 is a number, "7" is text."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, (str, int, float, bool)) or value is None else text


COMMANDS: tuple[click.Command, ...] = (search_table,)
