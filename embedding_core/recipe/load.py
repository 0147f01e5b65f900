"""Recipe files: YAML in, plain values out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from embedding_core.errors import UsageError
from embedding_core.recipe.yaml_values import StrictLoader
from embedding_core.store import storage
from embedding_core.store.storage import StorageSpec


@dataclass(frozen=True, slots=True)
class Written:
    """A recipe as someone wrote it, not validated yet."""

    content: dict[str, Any]
    base: Path | None
    """The folder that its paths are relative to."""
    origin: str
    """What messages call it."""


def read(recipe: str | Path | Mapping[str, Any], base: Path | None) -> Written:
    """A recipe from a YAML file, an ``s3://`` URI, a mapping, or JSON text."""
    if isinstance(recipe, Mapping):
        return Written(dict(recipe), base, "the recipe")
    text = str(recipe)
    if text.lstrip().startswith("{"):
        return Written(_mapping(text, "the recipe"), base, "the recipe")
    uri = storage.absolute(text, Path.cwd())
    if storage.is_local(uri):
        base = Path(uri).parent
    return Written(_read_yaml(uri, text), base, text)


def _read_yaml(uri: str, written: str) -> dict[str, Any]:
    """What a recipe file holds; ``written`` is its URI as someone wrote it."""
    try:
        content = storage.read_bytes(uri, StorageSpec())
    except FileNotFoundError as error:
        led_there = "" if uri == written else f" (where {written!r} leads from {Path.cwd()})"
        raise UsageError(
            f"no recipe at {uri}{led_there}; give the path of a YAML file, an absolute one for a "
            "deployment, whose worker has a working directory of its own"
        ) from error
    except IsADirectoryError as error:
        raise UsageError(f"{uri} is a folder; give the path of a recipe (a YAML file)") from error
    except OSError as error:
        raise UsageError(f"cannot read the recipe {uri}: {error}") from error
    return _mapping(content, uri)


def _mapping(text: str | bytes, origin: str) -> dict[str, Any]:
    try:
        content = yaml.load(text, StrictLoader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{origin} is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise UsageError(
            f"{origin} holds no recipe: expected keys such as name, source, model, lake",
            action="schema",
        )
    return content
