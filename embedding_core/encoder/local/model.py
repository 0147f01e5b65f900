"""A transformers model that takes batches of texts and gives unit vectors, in one arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from torch.nn.utils.rnn import pad_sequence

from embedding_core.encoder.checkpoint.describe import Checkpoint
from embedding_core.encoder.local import attention
from embedding_core.encoder.local.cpu import keep_freed_memory
from embedding_core.encoder.local.device import free_unused, to_device
from embedding_core.encoder.local.head import Head
from embedding_core.encoder.local.layers import (
    FP8,
    beside_fp8,
    gives_ends_only,
    install_layers,
    quantise,
)
from embedding_core.encoder.local.merge import merge
from embedding_core.encoder.local.packing import Batch, positions
from embedding_core.errors import ModelError

Tensor = torch.Tensor

_UNLOADABLE = (
    SafetensorError,
    OSError,
    RuntimeError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    AssertionError,
)
"""What transformers raises for settings or weights that make no model."""


class VarlenChoice(Protocol):
    """Chooses a kernel for variable lengths; see ``attention.varlen_kernel``."""

    def __call__(
        self, dtype: torch.dtype, device: torch.device, head_dim: int, windowed: bool
    ) -> attention.VarlenKernel | None: ...


@dataclass(frozen=True, slots=True)
class Kernels:
    """Attention that a device has in a single call."""

    varlen: VarlenChoice
    padded: attention.VarlenKernel | None
    """Kernel of causal models where ``varlen`` has none; None: a call for each length is faster."""

    @classmethod
    def of(cls, device: torch.device) -> Kernels:
        """The kernels of a device: a CPU is faster without the padded kernel, a GPU with it."""
        padded = attention.padded_kernel if device.type == "cuda" else None
        return cls(attention.varlen_kernel, padded)


class LoadedModel:
    """One copy of a checkpoint's weights on one device."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        dtype: torch.dtype,
        device: torch.device,
        dim: int,
        kernels: Kernels | None = None,
    ) -> None:
        """``kernels``: attention to use; by default what the device has."""
        self._device = device
        self._packed = checkpoint.rules.packed
        self._padding_position = checkpoint.padding_position
        self._pad_token_id = checkpoint.pad_token_id
        if device.type == "cpu":
            keep_freed_memory()
        weights_dtype = beside_fp8(device) if dtype == FP8 else dtype
        self._model = read_model(checkpoint, weights_dtype, device)
        kernels = kernels or Kernels.of(device)
        self._kernel = _kernel(self._model, checkpoint, weights_dtype, device, kernels)
        is_padded = self._kernel is not None and self._kernel is kernels.padded
        # Only pooled tokens leave the last layer, but the padded kernel needs a query for each key.
        self._ends_only = (
            gives_ends_only(self._model, checkpoint.rules.structure)
            and checkpoint.pooling == "last"
            and not is_padded
        )
        install_layers(self._model, checkpoint.rules.structure, self._ends_only)
        if dtype == FP8:
            quantise(self._model)
        free_unused(device)
        self._head = Head(checkpoint.pooling, checkpoint.dense, dim, device)

    @property
    def config(self) -> Any:
        """transformers' configuration of the model."""
        return self._model.config

    @torch.inference_mode()
    def forward(self, batch: Batch) -> Tensor:
        """(n_rows, dim) float32 on the model's device, unit norm; NaN where the model overflowed.

        Waits for nothing: on CUDA the result is still being computed when this returns.
        """
        packing = attention.layout(batch.lengths.tolist(), self._device, self._kernel)
        states = self._packed_states if self._packed else self._padded_states
        hidden = states(batch, packing)
        if self._ends_only:
            packing = packing.of_ends()  # the last layer gave a single state for each text
        return self._head(hidden, packing.query_bounds)

    def _packed_states(self, batch: Batch, packing: attention.Layout) -> Tensor:
        """(n_tokens, hidden_size), texts end to end; only their last tokens if ``_ends_only``."""
        hidden: Tensor = self._model(
            input_ids=to_device(batch.ids, self._device)[None],  # (1, n_tokens)
            position_ids=to_device(positions(batch, self._padding_position), self._device)[None],
            use_cache=False,
            return_dict=True,
            packing=packing,
        ).last_hidden_state[0]
        return hidden

    def _padded_states(self, batch: Batch, packing: attention.Layout) -> Tensor:
        """(n_tokens, hidden_size) of the real tokens, through transformers' own masks."""
        texts = torch.split(torch.from_numpy(batch.ids), batch.lengths.tolist())
        ids = pad_sequence(list(texts), batch_first=True, padding_value=self._pad_token_id)
        real = torch.arange(packing.longest) < torch.from_numpy(batch.lengths)[:, None]
        hidden: Tensor = self._model(
            input_ids=ids.to(self._device),  # (n_rows, longest)
            attention_mask=real.long().to(self._device),
            return_dict=True,
        ).last_hidden_state
        return hidden[real.to(self._device)]


def _kernel(
    model: Any,
    checkpoint: Checkpoint,
    dtype: torch.dtype,
    device: torch.device,
    kernels: Kernels,
) -> attention.VarlenKernel | None:
    """Attention in a single call, where there is a kernel for the model."""
    config = model.config
    if not checkpoint.rules.packed:
        return None
    heads = config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    windowed = getattr(config, "sliding_window", None) is not None
    kernel = kernels.varlen(dtype, device, head_dim, windowed)
    if kernel is None and checkpoint.causal and not windowed:
        return kernels.padded
    return kernel


def read_model(checkpoint: Checkpoint, dtype: torch.dtype, device: torch.device) -> Any:
    """transformers' own model with our attention, from safetensors alone, every weight present.

    An adapter is merged in fp32, whatever the arithmetic: half precision would round the sum of
    its two matrices before it is added.
    """
    import transformers

    attention.register()
    options = {"attn_implementation": attention.NAME} if checkpoint.rules.packed else {}
    try:
        with _no_progress_bar():
            model, report = getattr(transformers, checkpoint.rules.model_class).from_pretrained(
                checkpoint.directory,
                dtype=dtype if checkpoint.adapter is None else torch.float32,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
                **options,
            )
    except _UNLOADABLE as error:
        raise ModelError(
            f"the weights in {checkpoint.directory} cannot be loaded as its config.json says "
            f"({error}); download the checkpoint again"
        ) from error
    missing = sorted(key for key in report["missing_keys"] if not key.startswith("pooler."))
    if missing:
        raise ModelError(
            f"{checkpoint.directory} lacks {len(missing)} of the model's weights, for example "
            f"{missing[0]}; download the checkpoint again"
        )
    if checkpoint.adapter is not None:
        model = merge(model, checkpoint.adapter).to(dtype)
    return model.eval().requires_grad_(False).to(device)


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    """Switch off the bar that transformers draws for every load."""
    from transformers.utils import logging

    enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            logging.enable_progress_bar()
