"""The encoder for checkpoints: tokenise, pack, run, recompute what overflowed.

Results come in input order; texts run in length order in token-budget batches without padding.
Which arithmetic, batch and attention kernel are used changes speed and memory only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from embedding_core.encoder.base import Encoded, Encoder, Kind, NonFiniteVectors, Vectors
from embedding_core.encoder.checkpoint import Checkpoint
from embedding_core.encoder.model import LoadedModel
from embedding_core.encoder.packing import Ids, lay_out, pack
from embedding_core.encoder.probe import faster_cpu_dtype
from embedding_core.encoder.resolve import ResolvedModel, checkpoint_tokenizer
from embedding_core.errors import ModelError
from embedding_core.records import Space

BATCH_TOKENS = {"cpu": 4096, "cuda": 32_768}
"""Default token budget: enough to fill the matrices, small enough for the CPU's caches."""
WINDOW_BATCHES = 64
"""Batches' worth of tokens that are sorted by length together; bounds the ids held at a time."""

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
WIDER = {torch.float16: (torch.bfloat16, torch.float32), torch.bfloat16: (torch.float32,)}
"""What computes again the rows that a type could not represent, in this order."""


@dataclass(frozen=True, slots=True)
class _Window:
    """Consecutive texts that are sorted and packed together."""

    start: int
    """Position of the first text in the call's input."""
    ids: list[Ids]
    n_truncated: int

    @property
    def n_tokens(self) -> int:
        return sum(map(len, self.ids))


class TransformerEncoder(Encoder):
    """A checkpoint, loaded. Not for several threads at once: the device is shared anyway."""

    def __init__(
        self,
        space: Space,
        checkpoint: Checkpoint,
        dtype: str,
        device: str,
        batch_tokens: int | None,
    ) -> None:
        self.space = space
        self.tokenizer = self._tokenizer = checkpoint_tokenizer(checkpoint)
        _check_tokenizer(space, checkpoint, self._tokenizer.n_special, self._tokenizer.n_vocabulary)
        self._checkpoint = checkpoint
        self._device = choose_device(device)
        self.dtype = choose_dtype(dtype, self._device)
        """Arithmetic of the model: torch.float16, bfloat16 or float32."""
        self._budget = BATCH_TOKENS[self._device.type] if batch_tokens is None else batch_tokens
        self._models: dict[torch.dtype, LoadedModel] = {}
        self._model(self.dtype)

    @classmethod
    def from_resolved(
        cls, resolved: ResolvedModel, *, device: str, batch_tokens: int | None
    ) -> TransformerEncoder:
        """Load what ``resolve_model`` found."""
        assert resolved.checkpoint is not None
        if batch_tokens is not None and batch_tokens < 1:
            raise ModelError(f"batch_tokens is {batch_tokens}; use at least 1, or leave it out")
        return cls(resolved.space, resolved.checkpoint, resolved.dtype, device, batch_tokens)

    def encode(self, texts: Sequence[str], kind: Kind = "document") -> Encoded:
        """See ``Encoder.encode``. Memory beyond the result is bounded by one window of texts."""
        prompt = self.space.query_prompt if kind == "query" else self.space.document_prompt
        vectors = np.empty((len(texts), self.space.dim), dtype=np.float32)  # (n_texts, dim)
        n_tokens = n_truncated = n_recomputed = 0
        for window in self._windows(texts, prompt):
            part = vectors[window.start : window.start + len(window.ids)]
            part[:] = self._run(self.dtype, window.ids)
            n_recomputed += self._widen(part, window)
            n_tokens += window.n_tokens
            n_truncated += window.n_truncated
        return Encoded(vectors, n_tokens, n_truncated, n_recomputed)

    def _windows(self, texts: Sequence[str], prompt: str) -> Iterator[_Window]:
        limit = self._budget * WINDOW_BATCHES
        ids: list[Ids] = []
        start = held = n_truncated = 0
        for text_ids, truncated in self._tokenizer.encode(texts, prompt, self.space.max_tokens):
            if len(text_ids) == 0:
                raise ValueError(f"text {start + len(ids)} has no tokens; leave it out")
            ids.append(text_ids)
            held += len(text_ids)
            n_truncated += truncated
            if held >= limit:
                yield _Window(start, ids, n_truncated)
                start, ids, held, n_truncated = start + len(ids), [], 0, 0
        if ids:
            yield _Window(start, ids, n_truncated)

    def _run(self, dtype: torch.dtype, ids: Sequence[Ids]) -> Vectors:
        """(len(ids), dim) float32 in the order of ``ids``; waits for the device once, last."""
        model = self._model(dtype)
        out = torch.empty(len(ids), self.space.dim, device=self._device)  # (n_texts, dim) float32
        padded = not self._checkpoint.rules.packed
        for rows in pack([len(text_ids) for text_ids in ids], self._budget, padded):
            out[torch.from_numpy(rows).to(self._device)] = model.forward(lay_out(ids, rows))
        vectors: Vectors = out.cpu().numpy()
        return vectors

    def _widen(self, vectors: Vectors, window: _Window) -> int:
        """Compute the rows that are not finite again, in place; how many there were."""
        bad = first = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        for dtype in WIDER.get(self.dtype, ()):
            if not bad.size:
                break
            vectors[bad] = self._run(dtype, [window.ids[row] for row in bad])
            bad = bad[~np.isfinite(vectors[bad]).all(axis=1)]
        if bad.size:
            raise NonFiniteVectors((bad + window.start).tolist())
        return int(first.size)

    def _model(self, dtype: torch.dtype) -> LoadedModel:
        """The weights in this type; a wider copy is read from the files when first needed."""
        if dtype not in self._models:
            self._models[dtype] = LoadedModel(self._checkpoint, dtype, self._device, self.space.dim)
        return self._models[dtype]


def choose_device(asked: str) -> torch.device:
    """The torch device for auto, cpu, cuda or cuda:<n>."""
    if asked == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if asked == "cpu":
        return torch.device("cpu")
    number = asked.removeprefix("cuda").removeprefix(":")
    if not asked.startswith("cuda") or not (asked == "cuda" or number.isdigit()):
        raise ModelError(f"unknown device {asked!r}; use auto, cpu, cuda or cuda:<n>")
    n_devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(number or 0) >= n_devices:
        raise ModelError(
            f"device {asked!r} asked for, but torch sees {n_devices} CUDA devices here; use "
            "device auto or cpu, or install a CUDA build of torch and a driver"
        )
    return torch.device(asked)


def choose_dtype(asked: str, device: torch.device) -> torch.dtype:
    """The torch dtype for auto, fp16, bf16 or fp32 on this device."""
    if asked != "auto":
        return DTYPES[asked]
    return torch.float16 if device.type == "cuda" else faster_cpu_dtype()


def _check_tokenizer(
    space: Space, checkpoint: Checkpoint, n_special: int, n_vocabulary: int
) -> None:
    if space.max_tokens <= n_special:
        raise ModelError(
            f"max_tokens {space.max_tokens} leaves no room beside the {n_special} special tokens "
            f"of {space.model!r}; use at least {n_special + 1}"
        )
    if n_vocabulary > checkpoint.vocab_size:
        raise ModelError(
            f"{checkpoint.tokenizer_file} has {n_vocabulary} tokens, the model "
            f"{checkpoint.vocab_size}; use the tokenizer the model was published with"
        )
