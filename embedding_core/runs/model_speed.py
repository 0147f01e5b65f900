"""The recipe's model measured on this machine, with text of the recipe's own source."""

from __future__ import annotations

from itertools import islice

from embedding_core.encoder.bench.measure import ModelSpeed, measure_speed
from embedding_core.encoder.engines import describe_model
from embedding_core.errors import RejectedInput
from embedding_core.recipe import Recipe, Resources, SourceSpec
from embedding_core.records import Document, SourceFile
from embedding_core.sources import discover, read_documents

SAMPLE_FILES = 5
SAMPLE_DOCUMENTS = 100
"""Per file; the texts are joined and cut to the lengths that are measured."""


def measure(recipe: Recipe, resources: Resources, seconds: float) -> ModelSpeed:
    """Measure for about ``seconds`` per workload. See ``ModelSpeed`` for what comes of it."""
    info = describe_model(recipe.model)
    files = discover(recipe.source).files[:SAMPLE_FILES]
    sample = [text for file in files for text in _texts(file, recipe.source)]
    return measure_speed(info, sample, resources.device, seconds)


def _texts(file: SourceFile, source: SourceSpec) -> list[str]:
    documents = (record for record in read_documents(file, source) if isinstance(record, Document))
    try:
        return [document.text for document in islice(documents, SAMPLE_DOCUMENTS)]
    except RejectedInput:
        return []  # a run lists it; others may do
