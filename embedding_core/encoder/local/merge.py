"""Merges a LoRA adapter into its base by peft, in fp32; the result is a plain model."""

from __future__ import annotations

import re
from typing import Any

import torch

from embedding_core.encoder.checkpoint.adapter import Adapter, tail
from embedding_core.errors import ModelError
from embedding_core.plurals import counted

_NAME = "merged"
"""What peft calls the adapter while it merges."""


def merge(model: Any, adapter: Adapter) -> Any:
    """The model with ``scale · B A`` added to the weights that the adapter names.

    ``model`` is transformers' own, in fp32; nobody may use it afterwards. Raises ``ModelError``
    when peft is missing, or the merged weights are not finite.
    """
    try:
        import peft  # seconds; needed for adapters alone
    except ImportError as error:
        raise ModelError(
            "model.adapter needs peft, which is not installed: pip install 'embedlake[lora]'"
        ) from error
    names = {_layer_name(model, target.module, adapter): target for target in adapter.targets}
    first = adapter.targets[0]
    config = peft.LoraConfig(
        r=first.rank,
        lora_alpha=first.alpha,
        rank_pattern={re.escape(name): target.rank for name, target in names.items()},
        alpha_pattern={re.escape(name): target.alpha for name, target in names.items()},
        use_rslora=adapter.use_rslora,
        target_modules=list(names),
    )
    adapted = peft.LoraModel(model, {_NAME: config}, _NAME)
    report = adapted.load_state_dict(_matrices(adapter, names), strict=False)
    not_set = [key for key in report.missing_keys if ".lora_" in key]
    assert not (not_set or report.unexpected_keys), "every matrix has a layer"
    try:
        return adapted.merge_and_unload(safe_merge=True)
    except ValueError as error:
        raise ModelError(
            f"{adapter.weight_file} gives weights that are not finite ({error}); train it again"
        ) from error


def _layer_name(model: Any, module: str, adapter: Adapter) -> str:
    """The model's own name of the layer. Raises ``ModelError`` unless there is exactly one."""
    names: list[str] = [
        name
        for name, layer in model.named_modules()
        if isinstance(layer, torch.nn.Linear) and tail(name) == module
    ]
    if len(names) != 1:
        raise ModelError(
            f"{adapter.weight_file} changes {module}, and this model has "
            f"{counted(len(names), 'linear layer')} of that name; use a checkpoint that was "
            "merged with peft"
        )
    return names[0]


def _matrices(adapter: Adapter, names: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The adapter's matrices in fp32, named as peft calls them in this model."""
    from safetensors.torch import load_file

    stored = load_file(adapter.weight_file)
    return {
        f"model.{name}.lora_{letter}.{_NAME}.weight": stored[
            f"{target.key}.lora_{letter}.weight"
        ].float()
        for name, target in names.items()
        for letter in "AB"
    }
