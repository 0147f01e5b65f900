"""An encoder layer of BERT's structure: BERT, RoBERTa, XLM-RoBERTa."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from embedding_core.encoder.local.attention import Layout, Rule, attend
from embedding_core.encoder.local.layers.linear import Projections, fast_linear

Tensor = torch.Tensor


class BertLayer(nn.Module):
    """Stands in for an encoder layer of transformers, with its weights and the exact GELU."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        attention = layer.attention.self
        self._rule = Rule(causal=False, scale=attention.scaling)
        self._head_dim: int = attention.attention_head_size
        self._query_key_value = Projections(attention.query, attention.key, attention.value)
        self._out = fast_linear(layer.attention.output.dense)
        self._up = fast_linear(layer.intermediate.dense, activation="gelu")
        self._down = fast_linear(layer.output.dense)
        self._first_norm = layer.attention.output.LayerNorm
        self._second_norm = layer.output.LayerNorm

    def forward(
        self, hidden_states: Tensor, *_: object, packing: Layout, **_from_transformers: object
    ) -> Tensor:
        """(1, n_tokens, hidden_size) to the same."""
        hidden = hidden_states[0]
        query, key, value = (
            heads.view(len(heads), -1, self._head_dim) for heads in self._query_key_value(hidden)
        )
        attended = attend(query, key, value, packing, self._rule).flatten(1)
        hidden = self._first_norm(self._out.add_to(hidden, attended))
        out: Tensor = self._second_norm(self._down.add_to(hidden, self._up(hidden)))
        return out[None]
