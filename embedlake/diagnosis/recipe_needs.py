"""What a recipe needs: its source, its model, its lake, and room for what a run writes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path

from embedding_core.errors import EmbedlakeError, SetupError
from embedding_core.plurals import counted
from embedding_core.recipe import Recipe
from embedding_core.store import storage
from embedlake.extras import installing

COPIES_OF_TEXT = 2
"""Texts are staged, and written into the table."""
BYTES_OF_A_VALUE = 4
"""A value of a vector has two or four bytes in the table."""
SPARE_BYTES = 256 * 1024 * 1024
"""The ledger, indexes of a small table."""
MIB = 1024 * 1024


def check_source(recipe: Recipe) -> str:
    """List the source, and read and cut the first records of some files."""
    from embedding_core.runs.embed.estimate import sample_problems, sampled_files
    from embedding_core.sources import discover

    listing = discover(recipe.source)
    if problems := sample_problems(sampled_files(listing.files, recipe), recipe):
        raise SetupError("; ".join(problems))
    size = sum(file.size_bytes for file in listing.files)
    return (
        f"{counted(len(listing.files), 'file')}, {counted(size, 'byte')}, "
        f"{len(listing.unreadable):,} unreadable"
    )


def check_model(recipe: Recipe) -> str:
    """Describe the model; its weights are not loaded."""
    from embedding_core.encoder.engines import describe_model
    from embedding_core.runs.serving import is_endpoint

    if recipe.model.adapter is not None:
        with installing():
            import_module("peft")
    space = describe_model(recipe.model).space
    is_pinned = space.revision is not None and not is_endpoint(recipe.model)
    name = f"{space.model} at {space.revision}" if is_pinned else space.model
    return (
        f"{name}: {counted(space.dim, 'dimension')}, {counted(space.max_tokens, 'token')}, "
        f"{space.pooling}"
    )


def check_lake(recipe: Recipe) -> str:
    """Try to write, and look at the table's indexes."""
    from embedding_core.lake.index.broken import broken_indexes
    from embedding_core.lake.table import table_of
    from embedding_core.store.conditional_put import check_writable

    check_writable(recipe.lake.uri, recipe.lake.storage)
    table = table_of(recipe)
    if not table.exists():
        return f"{recipe.lake.uri} can be written; the table does not exist yet"
    if broken := broken_indexes(table.open()):
        reasons = "; ".join(f"{name}: {why}" for name, why in broken.items())
        raise SetupError(
            f"indexes of {table.uri} cannot be used ({reasons}); `embedlake embed` or `embedlake "
            "maintain` drops them and builds them again"
        )
    return f"{table.uri}: {counted(table.dataset().count_rows(), 'row')}"


def check_room(recipe: Recipe, free_bytes: Callable[[Path], int] | None = None) -> str:
    """Hold what a run would write below a local lake (staged rows, the table) against what
    is free there."""
    from embedding_core.encoder.engines import describe_model
    from embedding_core.runs.embed.planning import plan

    if not storage.is_local(recipe.lake.uri):
        return "staged rows are on the store of the lake"
    try:
        planned, dim = plan(recipe), describe_model(recipe.model).space.dim
    except EmbedlakeError:  # another check says so
        return "not known while the source or the model cannot be used"
    n_values = (planned.estimated_chunks or 0) * dim
    needed = COPIES_OF_TEXT * planned.size_bytes + BYTES_OF_A_VALUE * n_values + SPARE_BYTES
    folder = next(path for path in _upwards(Path(recipe.lake.uri)) if path.exists())
    free = (free_bytes or _free_bytes)(folder)
    if free < needed:
        raise SetupError(
            f"a run would write about {needed // MIB:,} MiB below {recipe.lake.uri} (staged rows, "
            f"table), and {free // MIB:,} MiB are free; make room, or name a lake.uri on "
            "a larger disk or on S3"
        )
    return f"about {needed // MIB:,} MiB to write, {free // MIB:,} MiB free below {folder}"


def dates(recipe: Recipe) -> Iterator[tuple[str, Callable[[], str | None]]]:
    """How to ask each S3 store of the recipe for its clock, by what it is called."""
    from embedding_core.store.s3 import Bucket, split_uri

    places = {recipe.source.uri: recipe.source.storage, recipe.lake.uri: recipe.lake.storage}
    for uri, spec in places.items():
        if storage.scheme_of(uri) == "s3":
            yield f"the store of {uri}", partial(Bucket.date, Bucket(split_uri(uri)[0], spec))


def _upwards(path: Path) -> tuple[Path, ...]:
    path = path.absolute()
    return (path, *path.parents)


def _free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free
