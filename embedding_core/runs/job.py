"""What every task of one run shares, and the model it names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

from embedding_core.encoder import Encoder, ResolvedModel, resolve_model
from embedding_core.encoder.load import load_resolved, unload
from embedding_core.encoder.parity import check_parity, parity_vectors
from embedding_core.errors import ModelError
from embedding_core.identity import SHOWN_DIGITS, space_id
from embedding_core.lake.lock import Lock, locked
from embedding_core.lake.spaces.references import keep_reference, read_reference
from embedding_core.lake.table import table_of
from embedding_core.recipe import LakeSpec, ModelSpec, Recipe, Resources
from embedding_core.records import Plan
from embedding_core.runs.announce import loading_context


@dataclass(frozen=True, slots=True)
class Job:
    """One run over one recipe; small, pickles, holds no model and no connection."""

    recipe: Recipe
    resources: Resources
    space_id: str
    """The space that was planned; a task that finds another model stops."""
    rows_id: str
    run_id: str
    table_version: int | None = None
    """The version of the table that was planned with; None before there is a table. Vectors of
    replaced rows are read from it."""

    @classmethod
    def of(cls, planned: Plan, recipe: Recipe, resources: Resources, run_id: str) -> Job:
        """The run that executes a plan."""
        return cls(
            recipe, resources, planned.space_id, planned.rows_id, run_id, planned.table_version
        )


def resolve(model: ModelSpec) -> ResolvedModel:
    """The recipe's model, found and described but not loaded."""
    return resolve_model(
        model.name,
        revision=model.revision,
        dtype=model.dtype,
        dim=model.dim,
        max_tokens=model.max_tokens,
        allow_unverified=model.allow_unverified,
        adapter=model.adapter,
        adapter_revision=model.adapter_revision,
        storage=model.storage,
    )


def load(model: ModelSpec, resources: Resources) -> Encoder:
    """The recipe's encoder as its name resolves now; the process keeps the one it used last.

    Another one goes before it comes: two may not fit the device. ``announcing`` says what is said
    of it.
    """
    wanted = (resolve(model), resources.device, resources.batch_tokens)
    if wanted not in _loaded:
        _loaded.clear()
        unload()
        with loading_context(model.name):
            _loaded[wanted] = load_resolved(*wanted)
    return _loaded[wanted]


@contextmanager
def locked_for(recipe: Recipe, run_id: str, wait_seconds: float) -> Iterator[Lock]:
    """Hold the recipe's table for writing rows. Raises ``Locked`` when another run goes on."""
    with locked(table_of(recipe), f"run {run_id[:SHOWN_DIGITS]}", wait_seconds) as lock:
        yield lock


@contextmanager
def locked_for_build(recipe: Recipe, run_id: str, wait_seconds: float) -> Iterator[Lock]:
    """Hold the recipe's table for building a space, beside runs that write rows."""
    holder = f"run {run_id[:SHOWN_DIGITS]}"
    with locked(table_of(recipe), holder, wait_seconds, kind="build") as lock:
        yield lock


_loaded: dict[tuple[ResolvedModel, str, int | None], Encoder] = {}
"""The encoder that was used last, under what it was loaded with."""


def load_planned(job: Job) -> Encoder:
    """The encoder for a task: the model that was planned, and it still gives what it gave.

    The first worker of a space keeps the vectors of a few fixed texts beside the lake, every other
    process compares its own before any work. Raises ``ModelError`` when they differ.
    """
    encoder = load(job.recipe.model, job.resources)
    check_planned_space(job, space_id(encoder.space))
    _check_parity_once(job.recipe.lake, job.space_id, job.recipe.model, job.resources)
    return encoder


@lru_cache(maxsize=8)
def _check_parity_once(
    lake: LakeSpec, planned: str, model: ModelSpec, resources: Resources
) -> None:
    encoder = load(model, resources)
    reference = read_reference(lake, planned)
    if reference is None:
        keep_reference(lake, planned, parity_vectors(encoder))
    else:
        check_parity(encoder, reference)


def check_planned_space(job: Job, found: str) -> None:
    """Raise ``ModelError`` when the model is no longer the one that was planned with."""
    if found != job.space_id:
        raise ModelError(
            f"the model {job.recipe.model.name} changed during the run: planned space "
            f"{job.space_id[:SHOWN_DIGITS]}, found {found[:SHOWN_DIGITS]}; pin model.revision, or "
            "name one dated checkpoint instead of latest, and run again"
        )


def resolve_planned(job: Job) -> ResolvedModel:
    """``resolve`` for a task: refuses a model that moved since the plan."""
    resolved = resolve(job.recipe.model)
    check_planned_space(job, space_id(resolved.space))
    return resolved
