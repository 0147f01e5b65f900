"""The recipe's model measured on this machine, with text of the recipe's own source."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from embedding_core.encoder.bench.measure import ModelSpeed, measure_speed
from embedding_core.encoder.bench.rates import EngineComparison, measure_rates
from embedding_core.encoder.engines import describe_model
from embedding_core.errors import RejectedInput
from embedding_core.identity import space_id
from embedding_core.recipe import ModelSpec, Recipe, Resources, SourceSpec
from embedding_core.records import Document, SourceFile
from embedding_core.runs.job import load_described, settled, unload
from embedding_core.runs.serving import following
from embedding_core.sources import discover, read_documents

SAMPLE_FILES = 5
SAMPLE_DOCUMENTS = 100
"""Per file; the texts are joined and cut to the lengths that are measured."""


def compare(
    recipe: Recipe, models: Sequence[ModelSpec], resources: Resources, seconds: float
) -> EngineComparison:
    """Measure the recipe's model and others on the same text, one after the other, for about
    ``seconds`` per workload."""
    sample = _sample(recipe)
    measured = []
    for model in (following(recipe).model, *models):
        info = describe_model(model)
        encoder = load_described(info, model, settled(resources))
        rates = measure_rates(info, encoder, space_id(info.space), sample, seconds)
        measured.append(rates)
    unload()
    return EngineComparison(tuple(measured))


def measure(recipe: Recipe, resources: Resources, seconds: float) -> ModelSpeed:
    """Measure for about ``seconds`` per workload. See ``ModelSpeed`` for what comes of it."""
    info = describe_model(recipe.model)
    return measure_speed(info, _sample(recipe), resources.device, seconds)


def _sample(recipe: Recipe) -> list[str]:
    """Texts of the first files of the source."""
    files = discover(recipe.source).files[:SAMPLE_FILES]
    return [text for file in files for text in _texts(file, recipe.source)]


def _texts(file: SourceFile, source: SourceSpec) -> list[str]:
    documents = (record for record in read_documents(file, source) if isinstance(record, Document))
    try:
        return [document.text for document in islice(documents, SAMPLE_DOCUMENTS)]
    except RejectedInput:
        return []  # a run lists it; others may do
