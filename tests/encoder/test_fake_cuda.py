"""The forward pass on a CUDA device that is only pretended: torch's fake tensors carry shapes,
types and devices, and no values.

At the real sizes, of every packed family, this finds tensors on different devices, mixed types and
wrong shapes; and whatever waits for the device: ``item``, ``tolist``, ``nonzero`` and indexing by
booleans need values and raise.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from typing import Any, cast

import numpy as np
import pytest
import torch
import transformers
from torch._subclasses import fake_tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from embedding_core.encoder.checkpoint.describe import Checkpoint
from embedding_core.encoder.checkpoint.families import FAMILIES
from embedding_core.encoder.local import attention, model
from embedding_core.encoder.local.layers import elementwise
from embedding_core.encoder.local.model import LoadedModel
from embedding_core.encoder.local.packing import lay_out

DEVICE = torch.device("cuda", 0)
LENGTHS = (700, 512, 512, 60, 1)
SMALL = {
    "vocab_size": 640,
    "hidden_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 256,
    "max_position_embeddings": 1024,
    "pad_token_id": 1,
}


def qwen3(hidden: int, layers: int, heads: int, feed_forward: int) -> Any:
    return transformers.Qwen3Config(
        vocab_size=151_936,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=8,
        head_dim=128,
        intermediate_size=feed_forward,
        max_position_embeddings=32_768,
    )


SHAPES = {
    "qwen3 0.6B": ("qwen3", qwen3(1024, 28, 16, 3072)),
    "qwen3 4B": ("qwen3", qwen3(2560, 36, 32, 9728)),
    "qwen3 8B": ("qwen3", qwen3(4096, 36, 32, 12288)),
    "bert": ("bert", transformers.BertConfig(**SMALL)),
    "roberta": ("roberta", transformers.RobertaConfig(**SMALL)),
    "xlm-roberta": ("xlm-roberta", transformers.XLMRobertaConfig(**SMALL)),
    "distilbert": (
        "distilbert",
        transformers.DistilBertConfig(
            vocab_size=640,
            dim=128,
            n_layers=3,
            n_heads=4,
            hidden_dim=256,
            max_position_embeddings=1024,
        ),
    ),
    "modernbert": ("modernbert", transformers.ModernBertConfig(**SMALL, local_attention=32)),
    "gemma3": (
        "gemma3_text",
        transformers.Gemma3TextConfig(
            **SMALL,
            num_key_value_heads=2,
            head_dim=32,
            query_pre_attn_scalar=32,
            sliding_window=32,
            layer_types=["sliding_attention", "full_attention", "sliding_attention"],
            use_bidirectional_attention=True,
        ),
    ),
    "llama": ("llama", transformers.LlamaConfig(**SMALL, num_key_value_heads=2)),
    "mistral": (
        "mistral",
        transformers.MistralConfig(**SMALL, num_key_value_heads=2, sliding_window=40),
    ),
    "qwen2": ("qwen2", transformers.Qwen2Config(**SMALL, num_key_value_heads=2)),
}


def test_every_packed_family_is_tried() -> None:
    packed = {name for name, family in FAMILIES.items() if family.packed}
    assert {family for family, _ in SHAPES.values()} == packed


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A card of Hopper's kind, by fake tensors, on a torch that may have no CUDA at all."""

    def there(values: Any, device: torch.device) -> torch.Tensor:
        return torch.empty(values.shape, dtype=torch.from_numpy(values).dtype, device=device)

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (9, 0))
    monkeypatch.setattr(fake_tensor, "init_gpu_context", lambda device: None)
    monkeypatch.setattr(model, "to_device", there)
    monkeypatch.setattr(model, "free_unused", lambda device: None)
    layout = import_module("embedding_core.encoder.local.attention.packed_layout")
    monkeypatch.setattr(layout, "to_device", there)
    # kernels need a card: what they stand in for has the same shapes
    monkeypatch.setattr(elementwise, "fuses_for", lambda device: False)
    if not torch.backends.cuda.is_built():  # its indexing in C++ asks for a guard of the device
        plain = torch.Tensor.__getitem__
        monkeypatch.setattr(
            torch.Tensor,
            "__getitem__",
            lambda tensor, key: (_item if tensor.device.type == "cuda" else plain)(tensor, key),
        )
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_forward_stays_on_the_device_and_waits_for_nothing(
    pretended: None, monkeypatch: pytest.MonkeyPatch, shape: str
) -> None:
    name, config = SHAPES[shape]
    dtype = torch.bfloat16
    rules = FAMILIES[name]
    attention.register()
    config._attn_implementation = attention.NAME
    with torch.device("meta"):
        random_model = getattr(transformers, rules.model_class)(config).eval()
    monkeypatch.setattr(model, "read_model", lambda *_: _on_device(random_model, dtype))
    checkpoint = _Described(rules, rules.causal, rules.pooling or "mean")
    hidden = getattr(config, rules.hidden_size_key)
    loaded = LoadedModel(cast(Checkpoint, checkpoint), dtype, DEVICE, hidden)
    ids = [np.ones(length, dtype=np.int32) for length in LENGTHS]
    vectors = loaded.forward(lay_out(ids, np.arange(len(ids))))
    assert (vectors.shape, vectors.dtype, vectors.device) == (
        (len(LENGTHS), hidden),
        torch.float32,
        DEVICE,
    )


class _Described:
    """What ``LoadedModel`` asks of a checkpoint."""

    def __init__(self, rules: Any, causal: bool, pooling: str) -> None:
        self.rules = replace(rules)
        self.causal, self.pooling = causal, pooling
        self.padding_position, self.pad_token_id, self.dense = rules.padding_position, 1, ()


def _on_device(model: Any, dtype: torch.dtype) -> Any:
    """The model with empty weights on the device; ``to`` would ask for a real one."""
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None:
                weight = torch.empty(parameter.shape, dtype=dtype, device=DEVICE)
                module._parameters[name] = torch.nn.Parameter(weight, requires_grad=False)
        for name, buffer in list(module._buffers.items()):
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device=DEVICE)
    return model


def _item(tensor: torch.Tensor, key: Any) -> torch.Tensor:
    """``tensor[key]`` by torch's own operators; booleans and unknown keys raise."""
    keys = key if isinstance(key, tuple) else (key,)
    if any(part is Ellipsis for part in keys):
        at = next(n for n, part in enumerate(keys) if part is Ellipsis)
        left_out = tensor.dim() - sum(part is not None and part is not Ellipsis for part in keys)
        keys = keys[:at] + (slice(None),) * left_out + keys[at + 1 :]
    out, dim, index = tensor, 0, []
    for part in keys:
        if part is None:
            out = torch.ops.aten.unsqueeze(out, dim)
            index.append(None)
            dim += 1
        elif isinstance(part, slice):
            if part != slice(None):
                step = part.step or 1
                out = torch.ops.aten.slice.Tensor(out, dim, part.start, part.stop, step)
            index.append(None)
            dim += 1
        elif isinstance(part, int) and not isinstance(part, bool):
            out = torch.ops.aten.select.int(out, dim, part)
        else:
            assert isinstance(part, torch.Tensor) and part.dtype != torch.bool
            index.append(part)
            dim += 1
    taken: torch.Tensor = (
        torch.ops.aten.index.Tensor(out, index) if any(part is not None for part in index) else out
    )
    return taken
