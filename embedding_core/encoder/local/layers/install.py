"""Replaces layers of transformers' models by ours."""

from __future__ import annotations

from typing import Any

from embedding_core.encoder.checkpoint.families import Structure
from embedding_core.encoder.local.layers.bert import BertLayer
from embedding_core.encoder.local.layers.decoder import DecoderLayer
from embedding_core.encoder.local.layers.elementwise import elementwise
from embedding_core.encoder.local.layers.linear import replace_linears


def install_layers(model: Any, structure: Structure | None, ends_only: bool) -> None:
    """Replace the layers of a transformers model, one after another, in place.

    Layers of another structure or activation stay transformers' own. ``ends_only``: the last
    decoder layer gives a single state for each text.
    """
    if gives_ends_only(model, structure):
        layers = model.layers
        fused = elementwise(model.config, model.device, model.dtype)
        for number, layer in enumerate(layers):
            ends = ends_only and number == len(layers) - 1
            layers[number] = DecoderLayer(layer, _window(layer, model.config), fused, ends)
    elif structure == "bert" and model.config.hidden_act == "gelu":
        layers = model.encoder.layer
        for number, layer in enumerate(layers):
            layers[number] = BertLayer(layer)
    replace_linears(model)


def gives_ends_only(model: Any, structure: Structure | None) -> bool:
    """Whether the layers are ones that ``DecoderLayer`` stands in for."""
    return structure == "llama" and model.config.hidden_act == "silu"


def _window(layer: Any, config: Any) -> int | None:
    """Tokens that a token sees, the token itself included; None: all before it."""
    if hasattr(layer.self_attn, "sliding_window"):  # each layer has its own
        window: int | None = layer.self_attn.sliding_window
        return window
    return getattr(config, "sliding_window", None)
