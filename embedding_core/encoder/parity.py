"""Is this still the model that made the vectors? Eight fixed texts answer before the bulk work.

Another driver, kernel or library version may change vectors a little; a wrong weight file, a
broken kernel or another pooling changes them a lot. Knows nothing of where references are kept.
"""

from __future__ import annotations

import numpy as np

from embedding_core.errors import ModelError
from embedding_core.protocols import TextEncoder, Vectors

LEAST_COSINE = 0.999
"""Half precision against fp32 stays above it; what is wrong falls far below."""

PARITY_TEXTS = (
    "The lake froze early that year.",
    "def mean(values):\n    return sum(values) / len(values)\n",
    "Wie spät ist es? Zu spät, sagte sie, und schloss das Fenster.",
    "東京は日本の首都です。人口は約千四百万人です。",
    "Invoice 2024-0173, due 31.12.: 1,250.00 EUR; 19 % VAT not included.",
    "🙂 naïve café — “quotes”, \t tabs and  two  spaces",
    "A",
    "Embeddings place texts in a space where near means alike. " * 12,
)
"""Short and long, prose and code, several scripts. Never change them: the references hold their
vectors."""


def parity_vectors(encoder: TextEncoder) -> Vectors:
    """(8, dim) float32, unit norm: ``PARITY_TEXTS`` as documents."""
    return encoder.encode_documents(PARITY_TEXTS)


def check_parity(encoder: TextEncoder, reference: Vectors) -> None:
    """Raise ``ModelError`` when a parity text's vector has left its reference.

    ``reference`` is what ``parity_vectors`` gave when the space was begun, in any float type.
    """
    expected = (len(PARITY_TEXTS), encoder.space.dim)
    if reference.shape != expected:
        raise ModelError(
            f"the parity reference has shape {reference.shape}, this encoder gives {expected}; "
            "it belongs to another space"
        )
    stored = reference.astype(np.float32)
    lengths = np.linalg.norm(stored, axis=1)  # (8,)
    cosines = (parity_vectors(encoder) * stored).sum(axis=1) / lengths
    worst = int(np.nan_to_num(cosines, nan=-1.0).argmin())
    if not cosines[worst] >= LEAST_COSINE:
        raise ModelError(
            f"{encoder.space.model!r} gives other vectors here than those in the table: cosine "
            f"{cosines[worst]:.4f} for parity text {worst}, at least {LEAST_COSINE} is needed; "
            "check the weights, the versions of torch and transformers, and the device"
        )
