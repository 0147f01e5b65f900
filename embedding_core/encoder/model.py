"""A transformers model that takes packed batches and gives unit vectors, in one arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from embedding_core.encoder import attention, cpu_linear
from embedding_core.encoder.checkpoint import Checkpoint, Pooling
from embedding_core.encoder.packing import Batch
from embedding_core.errors import ModelError

Tensor = torch.Tensor


class PackedModel:
    """One copy of a checkpoint's weights on one device."""

    def __init__(
        self, checkpoint: Checkpoint, dtype: torch.dtype, device: torch.device, dim: int
    ) -> None:
        self._device = device
        self._dim = dim
        self._pooling = checkpoint.pooling
        self._model = _load(checkpoint, dtype).to(device)
        if dtype == torch.bfloat16 and device.type == "cpu" and cpu_linear.can_fuse():
            _fuse(self._model)
        self._causal = checkpoint.family == "qwen3"
        config = self._model.config
        head_dim = getattr(config, "head_dim", config.hidden_size // config.num_attention_heads)
        self._kernel = attention.varlen_kernel(dtype, device, head_dim)
        if self._kernel is None and self._causal and device.type == "cuda":
            self._kernel = attention.padded_kernel

    @torch.inference_mode()
    def forward(self, batch: Batch) -> Tensor:
        """(n_rows, dim) float32 on the model's device, unit norm; NaN where the model overflowed.

        Waits for nothing: on CUDA the result is still being computed when this returns.
        """
        packing = attention.layout(batch.lengths.tolist(), self._device, self._kernel)
        hidden: Tensor = self._model(
            input_ids=self._to_device(batch.ids)[None],  # (1, n_tokens)
            position_ids=self._to_device(batch.positions)[None],
            attention_mask={"full_attention": None} if self._causal else None,
            use_cache=False,
            packing=packing,
        ).last_hidden_state[0]  # (n_tokens, hidden_size)
        pooled = pool(hidden, packing.bounds, self._pooling)[:, : self._dim]  # (n_rows, dim)
        # A zero vector becomes 0 / 0, NaN, on purpose: it is computed again in a wider type.
        norms: Tensor = torch.linalg.vector_norm(pooled, dim=1, keepdim=True)  # (n_rows, 1)
        return pooled / norms  # (n_rows, dim) unit norm

    def _to_device(self, values: Any) -> Tensor:
        tensor = torch.from_numpy(values)
        if self._device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self._device, non_blocking=True)


def pool(hidden: Tensor, bounds: Tensor, pooling: Pooling) -> Tensor:
    """One fp32 vector a text, (n_texts, hidden_size), of token states (n_tokens, hidden_size).

    Each text is summed by itself, in order, whatever else is in the batch.
    """
    if pooling == "cls":
        return hidden[bounds[:-1].long()].float()
    if pooling == "last":
        return hidden[bounds[1:].long() - 1].float()
    means: Tensor = torch.segment_reduce(hidden.float(), "mean", lengths=bounds.diff().long())
    return means


def _load(checkpoint: Checkpoint, dtype: torch.dtype) -> Any:
    """transformers' own model with our attention, from safetensors only, every weight present."""
    from safetensors import SafetensorError

    attention.register()
    try:
        with _no_progress_bar():
            model, report = _model_class(checkpoint).from_pretrained(
                checkpoint.directory,
                dtype=dtype,
                attn_implementation=attention.NAME,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except (SafetensorError, OSError, RuntimeError, ValueError) as error:
        raise ModelError(
            f"the weights in {checkpoint.directory} cannot be loaded ({error}); "
            "download the checkpoint again"
        ) from error
    missing = sorted(key for key in report["missing_keys"] if not key.startswith("pooler."))
    if missing:
        raise ModelError(
            f"{checkpoint.directory} lacks {len(missing)} of the model's weights, for example "
            f"{missing[0]}; download the checkpoint again"
        )
    return model.eval().requires_grad_(False)


def _fuse(model: Any) -> None:
    """Swap in the CPU's faster linear layers; BERT's GELU moves into the one before it."""
    fuse_gelu = model.config.model_type == "bert" and model.config.hidden_act == "gelu"
    cpu_linear.fuse_linears(model, "intermediate.dense" if fuse_gelu else None)
    if fuse_gelu:
        for layer in model.encoder.layer:
            layer.intermediate.intermediate_act_fn = torch.nn.Identity()


def _model_class(checkpoint: Checkpoint) -> Any:
    import transformers

    return {"qwen3": transformers.Qwen3Model, "bert": transformers.BertModel}[checkpoint.family]


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    """transformers draws a bar for every load; the caller's own progress says enough."""
    from transformers.utils import logging

    enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            logging.enable_progress_bar()
