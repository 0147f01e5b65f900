"""From a resolved model to a loaded encoder, and back: the only module that picks an
implementation."""

from __future__ import annotations

import gc
import sys

from embedding_core.encoder.base import Encoder
from embedding_core.encoder.hashing import HashingEncoder
from embedding_core.encoder.resolve import ResolvedModel


def load_resolved(resolved: ResolvedModel, device: str, batch_tokens: int | None) -> Encoder:
    """See ``Encoder.load``. The hashing encoder has no device and no batches to speak of."""
    if resolved.directory is None:
        return HashingEncoder(resolved.space)
    from embedding_core.encoder.local.transformer import TransformerEncoder  # torch: seconds

    return TransformerEncoder.from_resolved(resolved, device=device, batch_tokens=batch_tokens)


def unload() -> None:
    """Give the memory of encoders that nothing refers to back to their GPU."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
