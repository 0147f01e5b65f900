"""Paths in a recipe: which names are paths, and how a path means the same in every process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from embedding_core.errors import UsageError
from embedding_core.store import storage
from embedding_core.store.places import place_of

if TYPE_CHECKING:
    from embedding_core.recipe.spec import Recipe

ModelKind = Literal["hub", "path", "s3", "package", "endpoint", "plain", "other"]

PATH_STARTS = (".", "/", "~")
"""What tells a model's path from other names."""
MODEL_PATHS = ("name", "adapter", "tokenizer")
"""Fields of a model section that may be paths."""


def with_absolute_paths(recipe: Recipe, base: Path | None, origin: str) -> Recipe:
    """Resolve every path once, so that any process on the machine reads the same files.

    Without a ``base`` a relative path is a ``UsageError``: there is no file that it could be
    relative to, and a worker's working directory is anywhere.
    """
    if base is None:
        _refuse_relative_paths(recipe, origin)
    recipe = _with_map_folder(recipe, base, origin)
    return _with_absolute_paths(recipe, base or Path("/"), origin)


def model_path(name: str, base: Path) -> str:
    """A model's name that means the same in any folder: a path made absolute, others as they are.

    ``latest`` may be a link that moves: where it points is looked up when the model is.
    """
    if not is_path(name):
        return storage.absolute(name, base) if name.startswith("s3://") else name
    parent, _, last = name.rstrip("/").rpartition("/")
    if last == "latest":
        return str(Path(storage.absolute(parent or "/", base), last))
    return storage.absolute(name, base)


def source_path(uri: str, base: Path) -> str:
    """A source's URI that means the same in any folder. Raises ``UsageError`` where no store has
    its scheme."""
    place_of(uri)
    is_ours = storage.scheme_of(uri) in storage.SCHEMES
    return storage.absolute(uri, base) if is_ours else uri


def pinned_name(name: str, revision: str) -> str:
    """A path or URI that ends with ``latest``, with the folder ``revision`` that it stood for."""
    if not name.endswith("/latest"):
        return name
    beside = "" if revision.startswith("/") else name.removesuffix("latest")
    return beside + revision


def kind_of(model_name: str) -> ModelKind:
    """What a model's name names, by its form alone.

    ``plain`` is a name without a slash, such as ``hashing``; ``other`` has a scheme that nobody
    reads.
    """
    if model_name.startswith(PATH_STARTS):
        return "path"
    scheme = storage.scheme_of(model_name)
    if scheme == "s3":
        return "s3"
    if scheme:
        return "endpoint" if scheme in ("http", "https") else "other"
    if model_name.startswith("package:"):
        return "package"
    return "hub" if "/" in model_name else "plain"


def is_path(model_name: str) -> bool:
    """Whether a model's name is a local path."""
    return kind_of(model_name) == "path"


def with_folder(model_name: str) -> str:
    """A checkpoint's folder in the working directory as a path; other names as they are."""
    is_folder = kind_of(model_name) == "plain" and Path(model_name, "config.json").is_file()
    return f"./{model_name}" if is_folder else model_name


def _refuse_relative_paths(recipe: Recipe, origin: str) -> None:
    relative = [
        f"  {field}: {path!r} is relative"
        for field, path in _paths(recipe)
        if path is not None and storage.scheme_of(path) == "" and not path.startswith(("/", "~"))
    ]
    if relative:
        lines = [
            f"{origin} cannot be used:",
            *relative,
            "A recipe that is no file on disk has no folder to be relative to: write absolute "
            "paths or s3:// URIs.",
        ]
        raise UsageError("\n".join(lines))


def _paths(recipe: Recipe) -> Iterator[tuple[str, str | None]]:
    """Every path or URI of a recipe by its field; of models those that are paths."""
    yield "source.uri", recipe.source.uri
    yield "lake.uri", recipe.lake.uri
    if recipe.source.map is not None:
        yield "source.map.folder", recipe.source.map.folder
    yield "release.queries", recipe.release.queries
    yield "release.qrels", recipe.release.qrels
    for field, model in (
        ("model.name", recipe.model.name),
        ("model.adapter", recipe.model.adapter),
        ("model.tokenizer", recipe.model.tokenizer),
        ("chunk.tokenizer", recipe.chunk.tokenizer),
    ):
        if model is not None and is_path(model):
            yield field, model


@contextmanager
def _field(name: str, origin: str) -> Iterator[None]:
    """Let an error about a path name the field that has it."""
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{origin} cannot be used:\n  {name}: {error}") from error


def _with_map_folder(recipe: Recipe, base: Path | None, origin: str) -> Recipe:
    """The recipe with the folder of its map; where it names none, that of the recipe file."""
    source = recipe.source
    if source.map is None or (source.map.folder is None and base is None):
        return recipe
    with _field("source.map.folder", origin):
        folder = storage.absolute(source.map.folder or ".", base or Path("/"))
    changed = source.map.model_copy(update={"folder": folder})
    return recipe.model_copy(update={"source": source.model_copy(update={"map": changed})})


def _with_absolute_paths(recipe: Recipe, base: Path, origin: str) -> Recipe:
    resolvers = {
        "source": (("uri",), source_path),
        "chunk": (("tokenizer",), model_path),
        "model": (MODEL_PATHS, model_path),
        "lake": (("uri",), storage.absolute),
        "release": (("queries", "qrels"), storage.absolute),
    }
    sections = {}
    for section, (names, resolve) in resolvers.items():
        content, paths = getattr(recipe, section), {}
        for name in names:
            if (path := getattr(content, name)) is not None:
                with _field(f"{section}.{name}", origin):
                    paths[name] = resolve(path, base)
        sections[section] = content.model_copy(update=paths)
    return recipe.model_copy(update=sections)
