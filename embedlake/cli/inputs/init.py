"""``embedlake init``: propose a recipe for files that are there."""

from __future__ import annotations

import re
from pathlib import Path

import click

from embedding_core.errors import UsageError
from embedding_core.recipe import Recipe
from embedlake.cli.options import json_option, respond, saying_what_takes_long

HUB = "hf://datasets/"


@click.command("init")
@click.argument("path", required=False)
@click.option(
    "--from-hub",
    "dataset",
    metavar="OWNER/NAME[:CONFIG]",
    help="Propose a recipe for a dataset of the hub instead of PATH.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Where to write the recipe; default: the source's name and .yaml, here.",
)
@click.option("--model", metavar="MODEL", help="The model to name; default: one that is at hand.")
@click.option("--force", is_flag=True, help="Write over a file that is there.")
@json_option
def propose_recipe(
    path: str | None,
    dataset: str | None,
    out: Path | None,
    model: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Look at the files of PATH, propose a recipe with reasons, and show what it makes of them.

    PATH is a folder, a file, or a URI. Nothing is embedded; the one file written is the recipe,
    which is never written over another without --force.
    """
    from embedding_core.reports.inputs.draft import DraftView
    from embedding_core.runs.inputs.drafting import Wish, draft

    uri, config = _source(path, dataset)
    name = _name(uri, config)
    target = out or Path(f"{name}.yaml")
    if target.exists() and not force:
        raise UsageError(f"{target} is there already; name another file with --out, or --force")
    with saying_what_takes_long("init"):
        drafted = draft(Wish(uri, target.absolute().parent, name, model, config))
    report = DraftView(drafted, target)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(report.yaml(), encoding="utf-8")
    Recipe.load(target)  # what was written is a recipe
    lines = [*report.lines(), f"wrote {target}; next: embedlake plan {target}"]
    respond(report.data() | {"path": str(target.absolute())}, lines, as_json)


def _source(path: str | None, dataset: str | None) -> tuple[str, str | None]:
    """The source's URI, and the config of a dataset."""
    if (path is None) == (dataset is None):
        raise UsageError("name the files: either PATH or --from-hub OWNER/NAME, one of the two")
    if dataset is None:
        return str(path), None
    name, colon, config = dataset.removeprefix(HUB).partition(":")
    if re.fullmatch(r"[^/]+/[^/]+", name) is None or (colon and not config):
        raise UsageError(f"{dataset!r} names no dataset; write OWNER/NAME or OWNER/NAME:CONFIG")
    return HUB + name, config or None


def _name(uri: str, config: str | None) -> str:
    """A name for the recipe: the last part of the source, without suffixes and revision."""
    last = Path(uri).resolve().name if "://" not in uri else uri.rstrip("/").rpartition("/")[2]
    stem = last.partition("@")[0].partition(".")[0] or "recipe"
    name = re.sub(r"\W+", "-", f"{stem}-{config}" if config else stem).strip("-_")
    return name[:100] or "recipe"


COMMANDS: tuple[click.Command, ...] = (propose_recipe,)
