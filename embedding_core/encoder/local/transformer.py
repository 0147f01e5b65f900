"""The encoder for checkpoints: tokenise, pack, run, recompute what overflowed.

Results come in input order; texts run in length order in token-budget batches without padding.
Which arithmetic, batch and attention kernel are used changes speed and memory only.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from embedding_core.encoder.base import (
    Encoder,
    InvalidText,
)
from embedding_core.encoder.checkpoint.describe import Checkpoint
from embedding_core.encoder.checkpoint.tokenizer import CheckpointTokenizer, checkpoint_tokenizer
from embedding_core.encoder.local.budget import TokenBudget, first_budget
from embedding_core.encoder.local.cpu import Lanes, compute
from embedding_core.encoder.local.device import (
    choose_device,
    free_unused,
    half_type,
    is_out_of_memory,
    to_device,
)
from embedding_core.encoder.local.layers.fp8 import FP8
from embedding_core.encoder.local.model import LoadedModel
from embedding_core.encoder.local.packing import lay_out
from embedding_core.encoder.local.processor import faster_dtype
from embedding_core.encoder.stream import PIECE_CHARS, Ids, Piece, Rows, map_ahead
from embedding_core.errors import ModelError
from embedding_core.plurals import counted
from embedding_core.protocols import Kind, Vectors
from embedding_core.reasons import NO_WIDER_TYPE, NON_FINITE, OUT_OF_MEMORY
from embedding_core.records import ModelWork, Space

BATCH_TOKENS = {"cpu": 2048, "cuda": 32_768}
"""Most tokens of a batch by default: enough to fill the matrices; more takes memory alone, on a CPU
that of the caches, and in every lane."""
WINDOW_BATCHES = {"cpu": 128, "cuda": 4}
"""Batches that are sorted by length together, a window; it bounds the ids in memory. A CPU gains
from many texts of one length side by side. A GPU does not, and at the start it waits until a window
is tokenised."""
WINDOWS_AHEAD = {"cpu": 0, "cuda": 1}
"""Windows queued before the results of the oldest are read, so that a GPU never waits for the
host's work between two windows."""
CHARS_PER_TOKEN = 4
"""Characters of a token of ordinary text: how many are tokenised while a window runs."""
TOKENISER_THREADS = 2
"""The library spreads each piece over all cores; a second thread fills its serial steps."""

ModelLoader = Callable[[Checkpoint, torch.dtype, torch.device, int], LoadedModel]
"""Loads a checkpoint's weights in a type, on a device, for vectors of so many values."""

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32, "fp8": FP8}
WIDER = {
    FP8: (torch.bfloat16, torch.float32),
    torch.float16: (torch.bfloat16, torch.float32),
    torch.bfloat16: (torch.float32,),
}
"""Types that compute the rows again that a type could not represent, in this order."""


@dataclass(frozen=True, slots=True)
class _Tokenised:
    """A piece, ready to run."""

    piece: Piece
    ids: list[Ids]
    truncated: npt.NDArray[np.bool_]
    """(n_texts,)"""


@dataclass(frozen=True, slots=True)
class _Running:
    """Texts whose vectors are on their way from the device."""

    ids: list[Ids]
    vectors: torch.Tensor
    """(len(ids), dim) float32 in the host's memory, valid once ``copied``."""
    copied: torch.cuda.Event | None
    failures: dict[int, str]
    """Reasons why texts have no vector, by their positions."""

    def wait(self) -> Vectors:
        """The vectors; waits for the device if need be."""
        if self.copied is not None:
            self.copied.synchronize()
        vectors: Vectors = self.vectors.numpy()
        return vectors


def _windows(pieces: Iterable[_Tokenised], n_tokens: int) -> Iterator[list[_Tokenised]]:
    """Pieces in windows of at least ``n_tokens``; the last window has the rest."""
    window: list[_Tokenised] = []
    n_ids = 0
    for piece in pieces:
        window.append(piece)
        n_ids += sum(map(len, piece.ids))
        if n_ids >= n_tokens:
            yield window
            window, n_ids = [], 0
    if window:
        yield window


def _to_host(vectors: torch.Tensor) -> tuple[torch.Tensor, torch.cuda.Event | None]:
    """A copy in the host's memory and the event of its completion; waits for nothing."""
    if vectors.device.type != "cuda":
        return vectors, None
    host = torch.empty_like(vectors, device="cpu", pin_memory=True)
    host.copy_(vectors, non_blocking=True)
    copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
    copied.record(torch.cuda.current_stream(vectors.device))
    return host, copied


class TransformerEncoder(Encoder):
    """A checkpoint, loaded. Not for several threads at once: the device is shared anyway."""

    def __init__(
        self,
        space: Space,
        checkpoint: Checkpoint,
        dtype: str,
        device: str,
        batch_tokens: int | None,
        load: ModelLoader = LoadedModel,
        cpu_dtype: str = "auto",
    ) -> None:
        self.space = space
        self.tokenizer = self._tokenizer = checkpoint_tokenizer(
            checkpoint, checkpoint.document_prompt
        )
        _check_tokenizer(space, checkpoint, self._tokenizer)
        self._checkpoint = checkpoint
        self._load_model = load
        self._device = choose_device(device)
        self.dtype = choose_dtype(dtype, self._device, cpu_dtype)
        """Arithmetic of the model: torch.float16, bfloat16, float32 or float8_e4m3fn."""
        self._models: dict[torch.dtype, LoadedModel] = {}
        if batch_tokens is None:
            most, config = BATCH_TOKENS[self._device.type], self._model(self.dtype).config
            batch_tokens = first_budget(self._device, most, config, self.dtype)
        self._budget = TokenBudget(batch_tokens)
        self._model(self.dtype)

    def __repr__(self) -> str:
        (dtype,) = (name for name, dtype in DTYPES.items() if dtype == self.dtype)
        return f"{super().__repr__().removesuffix('>')}, {dtype} on {self._device}>"

    @property
    def batch_tokens(self) -> int:
        """Token budget of a forward pass: as set or chosen, smaller once memory ran out."""
        return self._budget.tokens

    @batch_tokens.setter
    def batch_tokens(self, tokens: int) -> None:
        self._budget.tokens = tokens

    def encode_pieces(self, pieces: Iterable[Piece], kind: Kind) -> Iterator[tuple[Piece, Rows]]:
        """See ``Encoder.encode_pieces``. Tokenises in the background while the model runs."""
        prompt = self.space.query_prompt if kind == "query" else self.space.document_prompt
        window_tokens = self.batch_tokens * WINDOW_BATCHES[self._device.type]
        n_ahead = 1 + window_tokens * CHARS_PER_TOKEN // PIECE_CHARS
        tokenise = partial(self._tokenise, prompt)
        running: deque[tuple[list[_Tokenised], _Running]] = deque()
        for window in _windows(
            map_ahead(tokenise, pieces, n_ahead, TOKENISER_THREADS, self._waited), window_tokens
        ):
            ids = [text_ids for piece in window for text_ids in piece.ids]
            running.append((window, self._start(self.dtype, ids)))
            if len(running) > WINDOWS_AHEAD[self._device.type]:
                yield from self._finish(*running.popleft())
        while running:
            yield from self._finish(*running.popleft())

    def _tokenise(self, prompt: str, piece: Piece) -> _Tokenised:
        try:
            encoded = self._tokenizer.encode(piece.texts, prompt, self.space.max_tokens)
            for index, (ids, _) in enumerate(encoded):
                if len(ids) == 0:
                    raise InvalidText(index, "has no tokens; leave it out")
        except InvalidText as error:
            raise InvalidText(piece.start + error.index, error.why, piece.batch) from error
        truncated = np.array([cut for _, cut in encoded], dtype=np.bool_)
        return _Tokenised(piece, [ids for ids, _ in encoded], truncated)

    def _start(self, dtype: torch.dtype, ids: list[Ids]) -> _Running:
        """Sort and pack the texts and run them all; on CUDA only queues the work.

        Vectors are in the order of ``ids``, NaN where the memory did not suffice.
        """
        model = self._model(dtype)
        device, shape = self._device, (len(ids), self.space.dim)
        out = compute(device, partial(torch.full, shape, torch.nan, device=device))

        sizes: list[int] = []  # of batches that fitted, in tokens
        budget, halvings = self._budget.tokens, self._budget.halvings

        def forward(rows: npt.NDArray[np.int64]) -> None:
            batch = lay_out(ids, rows)
            out[to_device(batch.rows, device)] = model.forward(batch)
            sizes.append(len(batch.ids))

        lengths = [len(text_ids) for text_ids in ids]
        lanes = Lanes.of(device, len(lengths), sum(lengths))
        padded = not self._checkpoint.rules.packed
        too_large = self._budget.run(lengths, padded, forward, lanes)
        self.work += ModelWork(
            len(sizes), sum(sizes), len(sizes) * budget, self._budget.halvings - halvings
        )
        return _Running(ids, *_to_host(out), dict.fromkeys(too_large, OUT_OF_MEMORY.name))

    def _finish(self, window: list[_Tokenised], running: _Running) -> Iterator[tuple[Piece, Rows]]:
        """Wait for a window's vectors, compute the overflowed ones again, cut into pieces."""
        vectors, ids, failures = running.wait(), running.ids, running.failures
        recomputed = self._widen(vectors, ids, failures)
        start = 0
        for piece in window:
            end = start + len(piece.ids)
            yield (
                piece.piece,
                Rows(
                    vectors=vectors[start:end],
                    n_tokens=np.array([len(text_ids) for text_ids in piece.ids], dtype=np.int32),
                    truncated=piece.truncated,
                    recomputed=recomputed[start:end],
                    failures={
                        row - start: why for row, why in failures.items() if start <= row < end
                    },
                ),
            )
            start = end

    def _widen(
        self, vectors: Vectors, ids: Sequence[Ids], failures: dict[int, str]
    ) -> npt.NDArray[np.bool_]:
        """Compute the rows that are not finite again, in place; (n_texts,) whether a row was.

        Adds the rows that no type can represent to ``failures``.
        """
        recomputed: npt.NDArray[np.bool_] = np.logical_not(np.isfinite(vectors).all(axis=1))
        recomputed[list(failures)] = False
        bad = np.flatnonzero(recomputed)
        for dtype in WIDER.get(self.dtype, ()):
            if not bad.size:
                break
            try:
                running = self._start(dtype, [ids[row] for row in bad.tolist()])
            except WeightsDoNotFit:
                failures |= dict.fromkeys(bad.tolist(), NO_WIDER_TYPE.name)
                return recomputed
            vectors[bad] = running.wait()
            failures |= {int(bad[index]): why for index, why in running.failures.items()}
            bad = bad[~np.isfinite(vectors[bad]).all(axis=1)]
            bad = bad[[row not in failures for row in bad.tolist()]]
        failures |= dict.fromkeys(bad.tolist(), NON_FINITE.name)
        return recomputed

    def _model(self, dtype: torch.dtype) -> LoadedModel:
        """The weights in this type; a wider copy is read from the files when first needed.

        Where two copies do not fit, they take turns. Raises ``WeightsDoNotFit`` when a single copy
        does not fit.
        """
        if dtype not in self._models:
            try:
                model = self._load(dtype)
            except WeightsDoNotFit:
                if not self._models:
                    raise
                self._models.clear()
                free_unused(self._device)
                model = self._load(dtype)
            self._models[dtype] = model
        return self._models[dtype]

    def _load(self, dtype: torch.dtype) -> LoadedModel:
        device = self._device
        try:
            return compute(
                device, self._load_model, self._checkpoint, dtype, device, self.space.dim
            )
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        raise WeightsDoNotFit(
            f"the weights of {self.space.model!r} in {dtype} do not fit the free memory of "
            f"{device}; use a smaller model, a larger or an emptier device, or, if they fit in "
            "the model's own dtype, ask for bf16, which does not overflow"
        )


class WeightsDoNotFit(ModelError):
    """One copy of the weights is larger than the free memory of the device."""


def choose_dtype(name: str, device: torch.device, cpu_dtype: str = "auto") -> torch.dtype:
    """The torch dtype for auto, fp16, bf16, fp32 or fp8 on this device.

    ``cpu_dtype`` says what auto is on a CPU; its own auto is the faster type of this processor.
    """
    if name != "auto":
        return DTYPES[name]
    if device.type == "cuda":
        return half_type(device)
    return DTYPES[faster_dtype() if cpu_dtype == "auto" else cpu_dtype]


def _check_tokenizer(space: Space, checkpoint: Checkpoint, tokenizer: CheckpointTokenizer) -> None:
    if space.max_tokens <= tokenizer.n_special:
        raise ModelError(
            f"max_tokens {space.max_tokens} leaves no room beside the "
            f"{counted(tokenizer.n_special, 'special token')} of {space.model!r}; use at least "
            f"{tokenizer.n_special + 1}"
        )
    if tokenizer.n_vocabulary > checkpoint.vocab_size:
        raise ModelError(
            f"{checkpoint.tokenizer_file} has {counted(tokenizer.n_vocabulary, 'token')}, the "
            f"model {checkpoint.vocab_size}; use the tokenizer the model was published with"
        )
    for prompt in (space.query_prompt, space.document_prompt):
        token = tokenizer.control_token(prompt)
        if token is not None:
            raise ModelError(
                f"the prompts of {space.model!r} (config_sentence_transformers.json) hold the "
                f"control token {token!r} in {prompt!r}; supported are prompts of plain text, "
                "since control tokens before a text are read as characters"
            )
