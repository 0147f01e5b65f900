"""Models by name, described as a recipe's model section would be."""

from __future__ import annotations

from typing import Any, Unpack

from embedding_core.encoder.engines import ModelOptions, describe_model, model_spec


def describe(name: str, **options: Unpack[ModelOptions]) -> Any:
    """What the engine of ``name`` says of it, loaded by nobody."""
    return describe_model(model_spec(name, **options))


def load_with(
    load: Any, name: str, batch_tokens: int | None = None, **options: Unpack[ModelOptions]
) -> Any:
    """A checkpoint's encoder on the CPU, whose weights ``load`` loads (``ModelLoader``)."""
    from embedding_core.encoder.local.transformer import TransformerEncoder

    info = describe(name, **options)
    return TransformerEncoder(
        info.space, info.checkpoint, info.dtype, "cpu", batch_tokens, load=load
    )
