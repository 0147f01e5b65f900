"""The command that looks for damage in a table."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from embedding_core.recipe import Recipe
from embedlake.cli.options import json_option, recipe_argument, respond, saying_what_takes_long
from embedlake.settings import read_settings

if TYPE_CHECKING:
    from embedding_core.lake.upkeep.row_audit import Damage
    from embedding_core.runs.repair import AuditReport


SOURCES_SHOWN = 5


@click.command()
@recipe_argument
@click.option("--deep", is_flag=True, help="Read every row, and embed a sample of them again.")
@click.option(
    "--sample",
    "sample_rows",
    type=click.IntRange(min=0),
    default=1_000,
    show_default=True,
    help="With --deep: rows whose vectors are made again, spread over the table; 0: none.",
)
@click.option(
    "--repair",
    "with_repair",
    is_flag=True,
    help="Take damaged rows out, for the next run to make again; make broken indexes anew.",
)
@json_option
def verify(recipe: str, deep: bool, sample_rows: int, with_repair: bool, as_json: bool) -> None:
    """Look for damage in the table, its ledger and its rejects: lost writes, flipped bits.

    Ends with 1 when something is damaged and stays so. Needs no Prefect.
    """
    from embedding_core.runs.outcome import exit_code_of
    from embedding_core.runs.repair import audit, repair

    loaded, settings = Recipe.load(recipe), read_settings()
    with saying_what_takes_long("verify"):
        if with_repair:
            report = repair(
                loaded, settings.resources, deep, sample_rows, settings.lock_wait_seconds
            )
        else:
            report = audit(loaded, settings.resources, deep, sample_rows)
    data = asdict(report) | {
        "damages": [asdict(one) | {"file_keys": sorted(one.file_keys)} for one in report.damages],
        "exit_code": exit_code_of(report.outcome),
    }
    respond(data, _lines(report), as_json)
    raise click.exceptions.Exit(data["exit_code"])


def _lines(report: AuditReport) -> list[str]:
    looked = f"{report.rows:,} rows of version {report.version}"
    if report.deep:
        looked += f", each read, {report.encoded_again:,} vectors made again"
    if not report.damages:
        return [f"{report.table}: no damage found ({looked})"]
    lines = [line for damage in report.damages for line in _damage_lines(damage)]
    end = f"{len(report.damages)} damages in {looked}; "
    if report.repaired:
        return [*lines, end + "taken out: `embedlake embed RECIPE` makes the rows again"]
    return [*lines, end + "`--repair` takes them out, and the next run makes the rows again"]


def _damage_lines(damage: Damage) -> list[str]:
    lines = [f"{damage.table}: {damage.what}"]
    if damage.data_files:
        lines.append(f"  in data/{', data/'.join(damage.data_files)}")
    if damage.rows:
        more = ", …" if damage.n_rows > len(damage.rows) else ""
        shown = ", ".join(map(str, damage.rows))
        lines.append(f"  {damage.n_rows} rows of fragment {damage.fragment_id}: {shown}{more}")
    elif damage.n_rows:
        lines.append(f"  {damage.n_rows:,} rows of fragment {damage.fragment_id}")
    if damage.source_uris:
        named = damage.source_uris[:SOURCES_SHOWN]
        n_more = damage.n_sources - len(named)
        lines.append(f"  from {', '.join(named)}" + (f" and {n_more:,} more" if n_more else ""))
    return lines


COMMANDS: tuple[click.Command, ...] = (verify,)
