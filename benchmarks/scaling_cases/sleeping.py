"""An encoder that sleeps as long as a GPU would compute, and writes down when.

Its name is ``sleeping:RATE``, RATE in tokens per second, or ``sleeping:RATE:TIMES``, of which GPUs
of an even number are so many times slower. Each process appends the beginning and
the end of every forward pass to a file of its own in the folder of ``SLEEPING_LOG``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from zlib import crc32

import numpy as np

from embedding_core.encoder.base import Encoder
from embedding_core.encoder.engines import ModelInfo
from embedding_core.encoder.hashing import HASHING, HashingInfo, HashingTokenizer
from embedding_core.encoder.stream import Piece, Rows
from embedding_core.protocols import Kind
from embedding_core.recipe import ModelSpec, Resources
from embedding_core.records import Space

LOG = "SLEEPING_LOG"
PREFIX = "sleeping:"
WORD_CHARACTERS = 6
"""Characters a token: counting them would take the cores that a GPU leaves alone."""


N_VECTORS = 1_021


class SleepingEncoder(Encoder):
    """Made-up unit vectors, the same for the same text, late."""

    def __init__(self, space: Space, tokens_per_second: float, times_slower: float) -> None:
        self.space = space
        self.tokenizer = HashingTokenizer()
        self._tokens_per_second = tokens_per_second
        self._times_slower = times_slower
        chance = np.random.default_rng(0)
        vectors = chance.standard_normal((N_VECTORS, space.dim), dtype=np.float32)
        self._vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def encode_pieces(self, pieces: Iterable[Piece], kind: Kind) -> Iterator[tuple[Piece, Rows]]:
        """A forward pass for each piece."""
        for piece in pieces:
            yield piece, self._rows(piece)

    def _rows(self, piece: Piece) -> Rows:
        began, n_texts = time.time(), len(piece.texts)
        n_tokens = np.array([len(text) // WORD_CHARACTERS for text in piece.texts], dtype=np.int32)
        vectors = self._vectors[[crc32(text.encode()) % N_VECTORS for text in piece.texts]]
        rate = self._tokens_per_second / (self._times_slower if _is_on_slow_gpu() else 1.0)
        time.sleep(max(0.0, began + int(n_tokens.sum()) / rate - time.time()))
        with Path(os.environ[LOG], str(os.getpid())).open("a") as log:
            log.write(f"{began} {time.time()}\n")
        none = np.zeros(n_texts, dtype=np.bool_)
        return Rows(vectors, n_tokens, none, none, {})


def _is_on_slow_gpu() -> bool:
    import ray

    return int(ray.get_gpu_ids()[0]) % 2 == 0


class SleepingEngine:
    """The engine of the names that begin with ``sleeping:``."""

    options = HASHING.options

    def claims(self, name: str) -> bool:
        """See ``Engine``."""
        return name.startswith(PREFIX)

    def describe(self, model: ModelSpec) -> HashingInfo:
        """See ``Engine``."""
        info = HASHING.describe(model)
        return replace(info, space=replace(info.space, model=model.name))

    def load(self, info: ModelInfo, resources: Resources) -> SleepingEncoder:
        """See ``Engine``."""
        rate, _, times = info.space.model.removeprefix(PREFIX).partition(":")
        return SleepingEncoder(info.space, float(rate), float(times or 1.0))


SLEEPING = SleepingEngine()
