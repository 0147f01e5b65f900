"""From a model's name to a loaded encoder: the only module that picks an implementation."""

from __future__ import annotations

from embedding_core.encoder.base import Encoder
from embedding_core.encoder.hashing import HashingEncoder
from embedding_core.encoder.resolve import resolve_model


def load_encoder(
    name: str,
    *,
    revision: str | None,
    dtype: str,
    device: str,
    dim: int | None,
    max_tokens: int | None,
    batch_tokens: int | None,
    allow_unverified: bool,
) -> Encoder:
    """See ``Encoder.load``. The hashing encoder has no device and no batches to speak of."""
    resolved = resolve_model(
        name,
        revision=revision,
        dtype=dtype,
        dim=dim,
        max_tokens=max_tokens,
        allow_unverified=allow_unverified,
    )
    if resolved.directory is None:
        return HashingEncoder(resolved.space)
    from embedding_core.encoder.transformer import TransformerEncoder  # torch: seconds

    return TransformerEncoder.from_resolved(resolved, device=device, batch_tokens=batch_tokens)
