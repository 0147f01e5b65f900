"""What all tasks of a run share, and how they load its model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from threading import RLock

from embedding_core.encoder.engines import ModelInfo, describe_model, free_memory, load_model
from embedding_core.encoder.local.processor import faster_dtype
from embedding_core.errors import ModelError
from embedding_core.identity import SHOWN_DIGITS
from embedding_core.lake.lock import Lock, locked
from embedding_core.lake.table import Table, table_of
from embedding_core.protocols import TextEncoder
from embedding_core.recipe import ModelSpec, Recipe, Resources
from embedding_core.records import Plan, WorkUnit
from embedding_core.runs.announce import loading_context
from embedding_core.store.layout import LockKind
from embedding_core.watch.spans import current_span


@dataclass(frozen=True, slots=True)
class Job:
    """A run over a recipe. Small, pickles, has no model and no connection."""

    recipe: Recipe
    resources: Resources
    space_id: str
    """The space that was planned; a task that finds another model stops."""
    rows_id: str
    run_id: str
    table_version: int | None = None
    """The version of the table that was planned with; None before there is a table. Vectors of
    replaced rows are read from it."""
    price_per_hour: float | None = None
    """What a worker costs an hour, in any currency; None when nobody said."""
    trace: str = field(default_factory=current_span, compare=False)
    """The span that the job was made in: parent of the spans of its tasks."""
    table: Table = field(init=False, compare=False)
    """The recipe's table."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "table", table_of(self.recipe))

    @classmethod
    def of(
        cls,
        planned: Plan,
        recipe: Recipe,
        resources: Resources,
        run_id: str,
        price_per_hour: float | None = None,
    ) -> Job:
        """The run that executes a plan."""
        return cls(
            recipe,
            settled(resources),
            planned.space_id,
            planned.rows_id,
            run_id,
            planned.table_version,
            price_per_hour,
        )


def unit_attributes(job: Job, unit: WorkUnit) -> dict[str, str | int]:
    """What the spans of a unit say of it."""
    file = {"file": unit.only_file} if unit.only_file else {}
    return {"run": job.run_id, "unit": unit.unit_id, "files": len(unit.files), **file}


_loaded: dict[tuple[ModelInfo, str, int | None, str, int], TextEncoder] = {}
"""The encoder that was used last, under what it was loaded with."""
_in_use = RLock()


def settled(resources: Resources) -> Resources:
    """The resources with the arithmetic of CPUs chosen: all tasks of a run use the same."""
    if resources.cpu_dtype != "auto":
        return resources
    return resources.updated({"cpu_dtype": faster_dtype()})


def load(model: ModelSpec, resources: Resources) -> TextEncoder:
    """The encoder of what the model's name means now; see ``load_described``."""
    return load_described(describe_model(model), model, resources)


def load_described(info: ModelInfo, model: ModelSpec, resources: Resources) -> TextEncoder:
    """The encoder of a model that ``info`` describes; the process keeps the encoder it used last.

    That encoder goes before another comes: two may not fit the device. ``announcing`` decides what
    people hear of it, under the model's name.
    """
    loading = (
        info,
        resources.device,
        resources.batch_tokens,
        resources.cpu_dtype,
        resources.at_once,
    )
    if loading not in _loaded:
        unload()
        with loading_context(model.name) as loaded:
            _loaded[loading] = loaded(load_model(info, model, resources))
    return _loaded[loading]


@contextmanager
def in_use(info: ModelInfo, model: ModelSpec, resources: Resources) -> Iterator[TextEncoder]:
    """The encoder of ``load_described`` for this thread alone: an encoder serves one thread at a
    time, and loading another lets go of it."""
    with _in_use:
        yield load_described(info, model, resources)


def unload() -> None:
    """Let go of the encoder that this process keeps, and of the memory it took."""
    _loaded.clear()
    free_memory()


def locked_for(
    recipe: Recipe, run_id: str, wait_seconds: float, kind: LockKind = "lock"
) -> AbstractContextManager[Lock]:
    """Hold the recipe's table for writing rows, or with ``kind`` for building a space, beside runs
    that write rows. Raises ``Locked`` when another run goes on."""
    return locked(table_of(recipe), f"run {run_id[:SHOWN_DIGITS]}", wait_seconds, kind)


def check_planned_space(job: Job, space_id_now: str) -> None:
    """Raise ``ModelError`` when the model is no longer the one that was planned with."""
    if space_id_now != job.space_id:
        raise ModelError(
            f"the model {job.recipe.model.name} changed during the run: planned space "
            f"{job.space_id[:SHOWN_DIGITS]}, found {space_id_now[:SHOWN_DIGITS]}; pin "
            "model.revision, or name one dated checkpoint instead of latest, and run again"
        )
