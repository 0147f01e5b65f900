"""Frozen records that the stages hand to each other.

They hold plain values only, so that they pickle small and cross processes. They know nothing of
Arrow, Lance, torch, Prefect or Ray.
"""

from embedding_core.records.choices import ChoiceSummary, SurveyUnit
from embedding_core.records.documents import (
    CONTEXT_END,
    Chunk,
    ColumnType,
    Document,
    Reject,
    Scalar,
    embedded_text,
)
from embedding_core.records.files import (
    Choice,
    FileVersion,
    PassedOver,
    PlannedFile,
    SourceFile,
)
from embedding_core.records.plan import Plan
from embedding_core.records.space import Space
from embedding_core.records.stages import ModelWork, Stage, StageSeconds
from embedding_core.records.units import (
    EmbeddedUnit,
    FileCounts,
    Slice,
    Span,
    StagedUnit,
    UnitResult,
    WorkUnit,
)

__all__ = [
    "CONTEXT_END",
    "Choice",
    "ChoiceSummary",
    "Chunk",
    "ColumnType",
    "Document",
    "EmbeddedUnit",
    "FileCounts",
    "FileVersion",
    "ModelWork",
    "PassedOver",
    "Plan",
    "PlannedFile",
    "Reject",
    "Scalar",
    "Slice",
    "SourceFile",
    "Space",
    "Span",
    "Stage",
    "StageSeconds",
    "StagedUnit",
    "SurveyUnit",
    "UnitResult",
    "WorkUnit",
    "embedded_text",
]
