"""Models by name, described as a recipe's model section would be."""

from __future__ import annotations

from typing import Any, Unpack

from embedding_core.encoder.engines import ModelOptions, describe_model, model_spec


def describe(name: str, **options: Unpack[ModelOptions]) -> Any:
    """What the engine of ``name`` says of it, loaded by nobody."""
    return describe_model(model_spec(name, **options))
