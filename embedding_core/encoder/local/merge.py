"""A LoRA adapter merged into its base by peft, in fp32; what is left is a plain model."""

from __future__ import annotations

import re
from typing import Any

import torch

from embedding_core.encoder.checkpoint.adapter import Adapter, tail
from embedding_core.errors import ModelError

_NAME = "merged"
"""What peft calls the adapter while it merges."""


def merge(model: Any, adapter: Adapter) -> Any:
    """The model with ``scale · B A`` added to the weights that the adapter names.

    ``model`` is transformers' own, in fp32, and is used up. Raises ``ModelError`` when peft is
    missing, or the merged weights are not finite.
    """
    try:
        import peft  # seconds; needed for adapters alone
    except ImportError as error:
        raise ModelError(
            "model.adapter needs peft, which is not installed: pip install 'embedlake[lora]'"
        ) from error
    names = {_place(model, target.module, adapter): target for target in adapter.targets}
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
    assert not (not_set or report.unexpected_keys), "every matrix has its place"
    try:
        return adapted.merge_and_unload(safe_merge=True)
    except ValueError as error:
        raise ModelError(
            f"{adapter.weight_file} gives weights that are not finite ({error}); train it again"
        ) from error


def _place(model: Any, module: str, adapter: Adapter) -> str:
    """What this model calls the layer, which must be the only one of that name."""
    found: list[str] = [
        name
        for name, one in model.named_modules()
        if isinstance(one, torch.nn.Linear) and tail(name) == module
    ]
    if len(found) != 1:
        raise ModelError(
            f"{adapter.weight_file} changes {module}, and this model has {len(found)} linear "
            "layers of that name; use a checkpoint that was merged with peft"
        )
    return found[0]


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
