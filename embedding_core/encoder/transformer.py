"""The encoder for checkpoints: tokenise, pack, run, recompute what overflowed.

Results come in input order; texts run in length order in token-budget batches without padding.
Which arithmetic, batch and attention kernel are used changes speed and memory only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from embedding_core.encoder.base import (
    NON_FINITE,
    OUT_OF_MEMORY,
    Encoder,
    InvalidText,
    Kind,
    Vectors,
)
from embedding_core.encoder.budget import TokenBudget, first_budget
from embedding_core.encoder.checkpoint import Checkpoint
from embedding_core.encoder.model import LoadedModel
from embedding_core.encoder.packing import Ids, lay_out
from embedding_core.encoder.probe import faster_cpu_dtype
from embedding_core.encoder.resolve import ResolvedModel, checkpoint_tokenizer
from embedding_core.encoder.stream import PIECE_CHARS, Piece, Rows, map_ahead
from embedding_core.errors import ModelError
from embedding_core.records import Space

BATCH_TOKENS = {"cpu": 4096, "cuda": 32_768}
"""Most tokens of a batch if not told: enough to fill the matrices; more only takes memory, on the
CPU the caches'."""
WINDOW_BATCHES = 64
"""Batches' worth of tokens that are sorted by length together; bounds the ids held at a time."""
CHARS_PER_TOKEN = 4
"""Of ordinary text: how many characters are tokenised while one window runs."""
TOKENISER_THREADS = 2
"""The library spreads each piece over all cores by itself; two overlap with its single parts."""

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
WIDER = {torch.float16: (torch.bfloat16, torch.float32), torch.bfloat16: (torch.float32,)}
"""What computes again the rows that a type could not represent, in this order."""


@dataclass(frozen=True, slots=True)
class _Tokenised:
    """A piece, ready to run."""

    piece: Piece
    ids: list[Ids]
    truncated: npt.NDArray[np.bool_]
    """(n_texts,)"""


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
        self._models: dict[torch.dtype, LoadedModel] = {}
        if batch_tokens is None:
            most, config = BATCH_TOKENS[self._device.type], self._model(self.dtype).config
            batch_tokens = first_budget(self._device, most, config, self.dtype)
        self._budget = TokenBudget(batch_tokens)
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

    @property
    def batch_tokens(self) -> int:
        """Token budget of one forward pass now: what was asked for or chosen, less if need be."""
        return self._budget.tokens

    def encode_pieces(self, pieces: Iterable[Piece], kind: Kind) -> Iterator[tuple[Piece, Rows]]:
        """See ``Encoder.encode_pieces``. Tokenises in the background while the model runs."""
        prompt = self.space.query_prompt if kind == "query" else self.space.document_prompt
        window_tokens = self.batch_tokens * WINDOW_BATCHES
        n_ahead = 1 + window_tokens * CHARS_PER_TOKEN // PIECE_CHARS
        tokenise = partial(self._tokenise, prompt)
        window: list[_Tokenised] = []
        held = 0
        for tokenised in map_ahead(tokenise, pieces, n_ahead, TOKENISER_THREADS):
            window.append(tokenised)
            held += sum(map(len, tokenised.ids))
            if held >= window_tokens:
                yield from self._run_window(window)
                window, held = [], 0
        yield from self._run_window(window)

    def _tokenise(self, prompt: str, piece: Piece) -> _Tokenised:
        try:
            encoded = self._tokenizer.encode(piece.texts, prompt, self.space.max_tokens)
            for place, (ids, _) in enumerate(encoded):
                if len(ids) == 0:
                    raise InvalidText(place, "has no tokens; leave it out")
        except InvalidText as error:
            raise InvalidText(piece.start + error.index, error.why, piece.batch) from error
        truncated = np.array([cut for _, cut in encoded], dtype=np.bool_)
        return _Tokenised(piece, [ids for ids, _ in encoded], truncated)

    def _run_window(self, window: list[_Tokenised]) -> Iterator[tuple[Piece, Rows]]:
        """The pieces of one window, all sorted and packed together."""
        ids = [text_ids for one in window for text_ids in one.ids]
        vectors, failures = self._run(self.dtype, ids)
        recomputed = self._widen(vectors, ids, failures)
        start = 0
        for one in window:
            end = start + len(one.ids)
            yield (
                one.piece,
                Rows(
                    vectors=vectors[start:end],
                    n_tokens=np.array([len(text_ids) for text_ids in one.ids], dtype=np.int32),
                    truncated=one.truncated,
                    recomputed=recomputed[start:end],
                    failures={
                        row - start: why for row, why in failures.items() if start <= row < end
                    },
                ),
            )
            start = end

    def _run(self, dtype: torch.dtype, ids: Sequence[Ids]) -> tuple[Vectors, dict[int, str]]:
        """(len(ids), dim) float32 in the order of ``ids``, NaN where the memory did not suffice.

        Waits for the device once, last.
        """
        model = self._model(dtype)
        out = torch.full((len(ids), self.space.dim), torch.nan, device=self._device)

        def forward(rows: npt.NDArray[np.int64]) -> None:
            out[torch.from_numpy(rows).to(self._device)] = model.forward(lay_out(ids, rows))

        padded = not self._checkpoint.rules.packed
        too_large = self._budget.run([len(text_ids) for text_ids in ids], padded, forward)
        vectors: Vectors = out.cpu().numpy()
        return vectors, dict.fromkeys(too_large, OUT_OF_MEMORY)

    def _widen(
        self, vectors: Vectors, ids: Sequence[Ids], failures: dict[int, str]
    ) -> npt.NDArray[np.bool_]:
        """Compute the rows that are not finite again, in place; (n_texts,) which these were.

        Adds to ``failures`` what no type could represent.
        """
        recomputed: npt.NDArray[np.bool_] = np.logical_not(np.isfinite(vectors).all(axis=1))
        recomputed[list(failures)] = False
        bad = np.flatnonzero(recomputed)
        for dtype in WIDER.get(self.dtype, ()):
            if not bad.size:
                break
            vectors[bad], too_large = self._run(dtype, [ids[row] for row in bad.tolist()])
            failures |= {int(bad[place]): why for place, why in too_large.items()}
            bad = bad[~np.isfinite(vectors[bad]).all(axis=1)]
            bad = bad[[row not in failures for row in bad.tolist()]]
        failures |= dict.fromkeys(bad.tolist(), NON_FINITE)
        return recomputed

    def _model(self, dtype: torch.dtype) -> LoadedModel:
        """The weights in this type; a wider copy is read from the files when first needed."""
        if dtype not in self._models:
            try:
                model = LoadedModel(self._checkpoint, dtype, self._device, self.space.dim)
            except torch.OutOfMemoryError as error:
                raise ModelError(
                    f"the weights of {self.space.model!r} in {dtype} do not fit the free memory of "
                    f"{self._device}; use a smaller model, a larger or an emptier device, or, if "
                    "they fit in the model's own dtype, ask for bf16, which does not overflow"
                ) from error
            self._models[dtype] = model
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
