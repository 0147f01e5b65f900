"""``embedlake doctor``: check the whole environment; each check says what to do about it."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import import_module

import click

from embedding_core.errors import EmbedlakeError, SetupError
from embedding_core.recipe import Recipe
from embedding_core.reports.report import said
from embedding_core.runs.outcome import EXIT_CODES
from embedlake.cli.options import json_option, respond
from embedlake.settings import Settings, prefect_api_url, read_settings

PACKAGES = ("prefect", "prefect-ray", "ray", "torch", "transformers", "lancedb", "pylance")
REGISTRIES = (
    "embedding_core.recipe.formats:KNOWN_FORMATS",
    "embedding_core.store.places:PLACES",
    "embedding_core.recipe.chunk:STRATEGIES",
    "embedding_core.encoder.engines:KNOWN_ENGINES",
    "embedding_core.exports.exporter:KNOWN_EXPORTERS",
    "embedding_core.quality.checks:GATE_CHECKS",
    "embedding_core.projections.projection:KNOWN_PROJECTIONS",
    "embedding_core.reports.report:WRITTEN",
)
"""Every registry of the library, one for each kind of plugin."""


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check."""

    name: str
    ok: bool
    detail: str
    """What was seen; for a check that failed also what to do."""


@click.command("doctor")
@click.argument("recipe", required=False)
@json_option
def check_environment(recipe: str | None, as_json: bool) -> None:
    """Check the environment; with RECIPE also its source, model and lake."""
    loaded = Recipe.load(recipe) if recipe is not None else None
    checks = list(diagnose(read_settings(), loaded))
    lines = [f"{'ok  ' if check.ok else 'FAIL'}  {check.name}: {check.detail}" for check in checks]
    respond({"checks": [asdict(check) for check in checks]}, lines, as_json)
    healthy = all(check.ok for check in checks)
    raise click.exceptions.Exit(EXIT_CODES["done" if healthy else "failed"])


def diagnose(settings: Settings, recipe: Recipe | None) -> Iterator[Check]:
    """Check this environment, and with a recipe also its source, model and lake."""
    yield Check("python", True, sys.version.split()[0])
    yield _try("packages", _packages)
    yield _try("plugins", _plugins)
    yield _try("processor", _processor)
    yield _try("folders", lambda: _folders(settings))
    yield _try("prefect", lambda: _prefect(settings))
    yield _try("ray", lambda: _ray(settings))
    if recipe is not None:
        yield _try("source", lambda: _source(recipe))
        yield _try("model", lambda: _model(recipe))
        yield _try("lake", lambda: _lake(recipe))


def _try(name: str, check: Callable[[], str]) -> Check:
    try:
        return Check(name, True, check())
    except (EmbedlakeError, ImportError, OSError) as error:
        return Check(name, False, said(error))


def _packages() -> str:
    try:
        return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    except importlib.metadata.PackageNotFoundError as error:
        raise ImportError(f"{error.name} is not installed; run `make setup`") from error


def _plugins() -> str:
    """Load every implementation of every registry; name the packages of those that are broken."""
    n_loaded, problems = 0, []
    for line in REGISTRIES:
        module, _, name = line.partition(":")
        registry = getattr(import_module(module), name)
        problems += registry.problems()
        n_loaded += len(registry.working())
    if problems:
        raise SetupError("; ".join(problems))
    return f"{n_loaded} implementations load, those of other packages included"


def _processor() -> str:
    import torch

    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}"
    return f"CPU, {torch.get_num_threads()} threads; no CUDA device"


def _folders(settings: Settings) -> str:
    from embedlake.local.folders import check_folders

    return check_folders(settings)


def _prefect(settings: Settings) -> str:
    from embedlake.local import processes
    from embedlake.local.stack import running_stack

    stack = running_stack(settings)
    url = prefect_api_url() or (stack.api_url if stack else None)
    if url is None:
        return "no API named; `embedlake embed` starts one for itself, `embedlake up` keeps one"
    if not processes.answers(f"{url}/health"):
        raise SetupError(
            f"no answer from {url}; start it, run `embedlake up`, or unset PREFECT_API_URL"
        )
    return url


def _ray(settings: Settings) -> str:
    from embedlake.local.hardware import lacking, local_capacity

    if settings.is_local_ray:
        if (problem := lacking(settings.resources, settings)) is not None:
            raise SetupError(problem)
        capacity = local_capacity(settings)
        cpus, gpus = capacity["CPU"], capacity["GPU"]
        return f"started for a run with {cpus:g} CPUs and {gpus:g} NVIDIA GPUs"
    if settings.ray_address in (None, "auto"):
        return "the cluster of this machine, looked for when a run starts"
    from embedlake.execution.ray_runner import check_reachable

    try:
        check_reachable(settings.ray_address)
    except ConnectionError as error:
        raise SetupError(
            f"nobody answers at {settings.ray_address}: {error}; correct EMBEDLAKE_RAY_ADDRESS, "
            "or unset it to have Ray started for each run"
        ) from error
    return f"something listens at {settings.ray_address}"


def _source(recipe: Recipe) -> str:
    from embedding_core.runs.embed.estimate import sample_problems, sampled_files
    from embedding_core.sources import discover

    listing = discover(recipe.source)
    if problems := sample_problems(sampled_files(listing.files, recipe), recipe):
        raise SetupError("; ".join(problems))
    size = sum(file.size_bytes for file in listing.files)
    return f"{len(listing.files):,} files, {size:,} bytes, {len(listing.unreadable):,} unreadable"


def _model(recipe: Recipe) -> str:
    from embedding_core.encoder.engines import describe_model
    from embedding_core.runs.serving import is_endpoint

    space = describe_model(recipe.model).space
    is_pinned = space.revision is not None and not is_endpoint(recipe.model)
    name = f"{space.model} at {space.revision}" if is_pinned else space.model
    return f"{name}: {space.dim} dimensions, {space.max_tokens:,} tokens, {space.pooling}"


def _lake(recipe: Recipe) -> str:
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
    return f"{table.uri}: {table.dataset().count_rows():,} rows"


COMMANDS: tuple[click.Command, ...] = (check_environment,)
