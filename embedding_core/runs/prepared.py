"""What a task works out before it begins: its model, found and checked, and how texts are cut."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

from embedding_core.chunking import Chunker
from embedding_core.encoder.engines import ModelInfo, describe_model
from embedding_core.encoder.parity import check_parity, parity_vectors
from embedding_core.errors import SetupError
from embedding_core.identity import rows_id, space_id
from embedding_core.lake.spaces.references import keep_reference, read_reference
from embedding_core.protocols import TextEncoder
from embedding_core.recipe import LakeSpec, ModelSpec, Recipe, Resources
from embedding_core.runs.cutting import Cutting, cutting_of, rules_of
from embedding_core.runs.job import Job, check_planned_space, load_described


@dataclass(frozen=True, slots=True)
class Prepared:
    """A job whose model is here and is the one that was planned."""

    job: Job
    model: ModelInfo

    @property
    def pinned_recipe(self) -> Recipe:
        """The job's recipe, its model pinned to the revision that it has now."""
        recipe = self.job.recipe
        model = recipe.model.pinned(self.model.space.revision)
        return recipe.model_copy(update={"model": model})

    @property
    def cutting(self) -> Cutting:
        """How texts are cut; decided once per run and process. Errors as ``cutting_of``."""
        return self._decided().cutting

    @property
    def chunker(self) -> Chunker:
        """The chunker for this cutting; the same object in this process."""
        return self._decided().chunker

    def check_map(self) -> None:
        """Raise ``SetupError`` when the source of the recipe's map is not the one that was planned
        with."""
        job = self.job
        if job.recipe.source.map is None:
            return
        if rows_id(rules_of(job.recipe, self.cutting)) != job.rows_id:
            raise SetupError(
                "the module of source.map is not the one that was planned with: its source changed "
                "during the run, or is another on this machine; have the same module on every "
                "node, and run again"
            )

    def encoder(self) -> TextEncoder:
        """The model, loaded; the process keeps the encoder that it used last.

        The first worker of a space keeps the vectors of a few fixed texts beside the lake. Every
        other process compares its own before any work. Raises ``ModelError`` when they differ.
        """
        job = self.job
        encoder = load_described(self.model, job.recipe.model, job.resources)
        _check_parity_once(
            self.model, job.recipe.model, job.recipe.lake, job.space_id, job.resources
        )
        return encoder

    def _decided(self) -> _Decided:
        return _decided(_Question(self.model, self.job.rows_id, self.job.run_id, self))


def prepared(job: Job) -> Prepared:
    """Find the job's model. Loads nothing.

    Every task looks where the model is now: a name may have moved since the plan. Raises
    ``ModelError`` when it did.
    """
    model = describe_model(job.recipe.model)
    check_planned_space(job, space_id(model.space))
    return Prepared(job, model)


@dataclass(frozen=True, slots=True)
class _Question:
    """What decides how a job's texts are cut; equal for all tasks of a run."""

    model: ModelInfo
    rows_id: str
    run_id: str
    ready: Prepared = field(compare=False)


@dataclass(frozen=True, slots=True)
class _Decided:
    cutting: Cutting
    chunker: Chunker


@lru_cache(maxsize=2)
def _decided(question: _Question) -> _Decided:
    job = question.ready.job
    snapshot = None if job.table_version is None else job.table.open_if_made()
    cutting = cutting_of(question.ready.pinned_recipe, question.model, snapshot)
    return _Decided(cutting, cutting.chunker())


@lru_cache(maxsize=8)
def _check_parity_once(
    info: ModelInfo, model: ModelSpec, lake: LakeSpec, planned: str, resources: Resources
) -> None:
    encoder = load_described(info, model, resources)
    reference = read_reference(lake, planned)
    if reference is None:
        keep_reference(lake, planned, parity_vectors(encoder))
    else:
        check_parity(encoder, reference)
