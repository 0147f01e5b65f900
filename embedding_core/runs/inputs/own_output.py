"""Files that are written of a table must not come back as documents of its source."""

from __future__ import annotations

from pathlib import Path

from embedding_core.errors import UsageError
from embedding_core.recipe import Recipe
from embedding_core.sources.selection import Selection
from embedding_core.store.storage import absolute


def check_outside_source(recipe: Recipe, uri: str) -> None:
    """Raise ``UsageError`` where the next run would read a file that is to be written."""
    source, target = recipe.source.uri.rstrip("/"), absolute(uri, Path.cwd())
    path = target.removeprefix(f"{source}/")
    if path == target:
        return
    selection, parts = Selection.of(recipe.source), path.split("/")
    folders = ["/".join(parts[:depth]) for depth in range(1, len(parts))]
    if all(map(selection.enters, folders)) and selection.takes(path):
        raise UsageError(
            f"{target} lies in the source of recipe {recipe.name!r}, so the next run would embed "
            f"it; name a file outside {source}, or leave it out by source.exclude"
        )
