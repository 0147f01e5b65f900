"""Where the texts of a packed batch lie, and what a token sees of its text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from embedding_core.encoder.local.device import to_device
from embedding_core.encoder.local.packing import equal_length_runs

Tensor = torch.Tensor
VarlenKernel = Callable[[Tensor, Tensor, Tensor, "Layout", "Rule"], Tensor]
"""(n_tokens, n_heads, head_dim) queries, keys, values; layout; rule -> like queries."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the texts of a packed batch lie, in the forms the kernels want."""

    runs: tuple[tuple[int, int], ...]
    """Neighbours of equal length: (n_texts, length)."""
    bounds: Tensor
    """(n_texts + 1,) int32 on the model's device: first token of each text, and the end."""
    longest: int
    """Tokens of the longest text."""
    kernel: VarlenKernel | None
    """Attention over variable lengths in one call; None: one call per run of equal lengths."""
    ends_only: bool = False
    """Whether only the last token of each text is a query, instead of every token."""

    @property
    def query_bounds(self) -> Tensor:
        """(n_texts + 1,) int32: first query of each text, and the end."""
        if not self.ends_only:
            return self.bounds
        return torch.arange(len(self.bounds), dtype=torch.int32, device=self.bounds.device)

    def of_ends(self) -> Layout:
        """The same texts with a single query each."""
        return replace(self, ends_only=True)

    @property
    def most_queries(self) -> int:
        """Most queries of a text."""
        return 1 if self.ends_only else self.longest


@dataclass(frozen=True, slots=True)
class Rule:
    """What a token sees of the text it belongs to, and how scores are scaled."""

    causal: bool
    """Whether a token sees nothing after itself."""
    scale: float
    """Factor of the scores before the softmax."""
    reach: int | None = None
    """Tokens that a token sees on each side of itself; None: all."""


def layout(
    lengths: Sequence[int], device: torch.device, kernel: VarlenKernel | None = None
) -> Layout:
    """The layout of texts of these lengths, end to end in this order."""
    bounds = np.zeros(len(lengths) + 1, dtype=np.int32)
    bounds[1:] = np.cumsum(lengths)
    return Layout(
        runs=tuple(equal_length_runs(lengths)),
        bounds=to_device(bounds, device),
        longest=max(lengths),
        kernel=kernel,
    )
