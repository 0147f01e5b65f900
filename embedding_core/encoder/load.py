"""Former names of the ways to a model, until every room uses ``encoder.engines``."""

from __future__ import annotations

from typing import Any, Unpack, cast

from embedding_core.encoder.engines import (
    ModelInfo,
    ModelOptions,
    describe_model,
    load_model,
    model_spec,
)
from embedding_core.encoder.engines import free_memory as unload
from embedding_core.encoder.local.engine import CheckpointInfo as ResolvedModel
from embedding_core.recipe import Resources


def resolve_model(name: str, **options: Unpack[ModelOptions]) -> ResolvedModel:
    """``describe_model(model_spec(...))``."""
    return cast("ResolvedModel", describe_model(model_spec(name, **options)))


def load_resolved(info: ModelInfo, device: str, batch_tokens: int | None) -> Any:
    """``load_model`` for a model that is named by its space."""
    resources = Resources(device=device, batch_tokens=batch_tokens)
    return load_model(info, model_spec(info.space.model), resources)


__all__ = ["ResolvedModel", "load_resolved", "resolve_model", "unload"]
