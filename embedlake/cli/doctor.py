"""Checks of the whole environment, each with what to do about it."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from embedding_core.errors import EmbedlakeError, SetupError
from embedding_core.lake.index.broken import broken_indexes
from embedding_core.lake.table import table_of
from embedding_core.recipe import Recipe
from embedding_core.runs.embed.estimate import sample_problems, sampled_files
from embedding_core.runs.job import resolve
from embedding_core.sources import discover
from embedding_core.store.conditional_put import check_writable
from embedlake.local import processes
from embedlake.local.folders import check_folders
from embedlake.local.hardware import lacking, local_capacity
from embedlake.local.stack import running_stack
from embedlake.settings import Settings, prefect_api_url

PACKAGES = ("prefect", "prefect-ray", "ray", "torch", "transformers", "lancedb", "pylance")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at."""

    name: str
    ok: bool
    detail: str
    """What was found; when not ok, also what to do."""


def diagnose(settings: Settings, recipe: Recipe | None) -> Iterator[Check]:
    """Check this environment, and with a recipe also its source, model and lake."""
    yield Check("python", True, sys.version.split()[0])
    yield _try("packages", _packages)
    yield _try("processor", _processor)
    yield _try("folders", lambda: check_folders(settings))
    yield _prefect(settings)
    yield _try("ray", lambda: _ray(settings))
    if recipe is not None:
        yield _try("source", lambda: _source(recipe))
        yield _try("model", lambda: _model(recipe))
        yield _try("lake", lambda: _lake(recipe))


def _try(name: str, check: Callable[[], str]) -> Check:
    try:
        return Check(name, True, check())
    except (EmbedlakeError, ImportError, OSError) as error:
        return Check(name, False, str(error))


def _packages() -> str:
    try:
        return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    except importlib.metadata.PackageNotFoundError as error:
        raise ImportError(f"{error.name} is not installed; run `make setup`") from error


def _processor() -> str:
    import torch

    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}"
    return f"CPU, {torch.get_num_threads()} threads; no CUDA device"


def _prefect(settings: Settings) -> Check:
    stack = running_stack(settings)
    url = prefect_api_url() or (stack.api_url if stack else None)
    if url is None:
        detail = "no API named; `embedlake embed` starts one for itself, `embedlake up` keeps one"
        return Check("prefect", True, detail)
    if processes.answers(f"{url}/health"):
        return Check("prefect", True, url)
    return Check(
        "prefect", False, f"no answer from {url}; start it, run `embedlake up`, or unset "
        "PREFECT_API_URL",
    )  # fmt: skip


def _ray(settings: Settings) -> str:
    if settings.is_local_ray:
        if (problem := lacking(settings.resources, settings)) is not None:
            raise SetupError(problem)
        there = local_capacity(settings)
        return f"started for a run with {there['CPU']:g} CPUs and {there['GPU']:g} NVIDIA GPUs"
    from embedlake.execution.ray_runner import check_reachable

    if settings.ray_address in (None, "auto"):
        return "the cluster of this machine, looked for when a run starts"
    try:
        check_reachable(settings.ray_address)
    except ConnectionError as error:
        raise SetupError(
            f"nobody answers at {settings.ray_address}: {error}; correct EMBEDLAKE_RAY_ADDRESS, "
            "or unset it to have Ray started for each run"
        ) from error
    return f"something listens at {settings.ray_address}"


def _source(recipe: Recipe) -> str:
    found = discover(recipe.source)
    problems = sample_problems(sampled_files(found.files, recipe), recipe)
    if problems:
        raise SetupError("; ".join(problems))
    size = sum(file.size_bytes for file in found.files)
    return f"{len(found.files):,} files, {size:,} bytes, {len(found.unreadable):,} unreadable"


def _model(recipe: Recipe) -> str:
    space = resolve(recipe.model).space
    name = f"{space.model} at {space.revision}" if space.revision else space.model
    return f"{name}: {space.dim} dimensions, {space.max_tokens:,} tokens, {space.pooling}"


def _lake(recipe: Recipe) -> str:
    check_writable(recipe.lake.uri, recipe.lake.storage)
    table = table_of(recipe)
    if not table.exists():
        return f"{recipe.lake.uri} can be written; the table does not exist yet"
    if broken := broken_indexes(table):
        named = "; ".join(f"{name}: {why}" for name, why in broken.items())
        raise SetupError(
            f"indexes of {table.uri} cannot be used ({named}); `embedlake embed` or `embedlake "
            "maintain` drops them and makes them anew"
        )
    return f"{table.uri}: {table.dataset().count_rows():,} rows"
