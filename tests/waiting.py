"""An encoder that waits in the middle of its work, so that a test can end the run there.

The engine ``waiting`` makes the vectors of ``hashing``. The test says how many pieces all its
processes may encode together; whoever has the next piece waits until more are allowed. A text that
begins with ``GREEDY`` takes memory without end, and ``DEADLY`` kills the process.
"""

from __future__ import annotations

import json
import math
import os
import signal
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from embedding_core.encoder import engines
from embedding_core.encoder.engines import KNOWN_ENGINES, ModelInfo, engine_of
from embedding_core.encoder.hashing import HASHING, HashingEncoder, HashingInfo
from embedding_core.encoder.parity import PARITY_TEXTS
from embedding_core.encoder.stream import Piece, Rows
from embedding_core.protocols import Kind
from embedding_core.recipe import ModelSpec, Resources
from embedding_core.registry import ENGINES
from tests.plugins import distribution, unread

NAME = "waiting"
FOLDER = "WAITING_FOLDER"
ROOT = Path(__file__).resolve().parents[1]
SITE = "site"
GREEDY, DEADLY = "greedy", "deadly"
"""``DEADLY`` does at once what the kernel does to a process when memory is exhausted."""
GREED_BYTES, BITE_BYTES = 6 * 2**30, 64 * 2**20
"""What is without end for a test must not take down the machine."""


class Pieces:
    """The pieces that were encoded, and how many may be, in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._limit = folder, folder / "limit"

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to have the engine and to wait."""
        path = os.pathsep.join((str(self._folder / SITE), str(ROOT)))
        return {"PYTHONPATH": path, FOLDER: str(self._folder)}

    def allow(self, n_more: int) -> None:
        """So many more pieces may be encoded than were so far."""
        self._limit.write_text(str(self.n_encoded() + n_more))

    def allow_all(self) -> None:
        """Nobody waits any more."""
        self._limit.unlink(missing_ok=True)

    def take(self, texts: Sequence[str] = ()) -> None:
        """Wait until a piece may be encoded, and count it."""
        while self.n_encoded() >= self._allowed():
            time.sleep(0.02)
        (self._folder / f"{uuid.uuid4().hex}.piece").write_text(json.dumps(list(texts)))

    def clear(self) -> None:
        """Count from nothing again; nobody waits."""
        self.allow_all()
        for path in self._folder.glob("*.piece"):
            path.unlink()

    def n_encoded(self) -> int:
        """Pieces that were encoded, or begun."""
        return sum(1 for _ in self._folder.glob("*.piece"))

    def of_texts(self) -> list[list[str]]:
        """The texts of each piece, but for those that tell whether the model is the same."""
        pieces = [json.loads(path.read_text()) for path in self._folder.glob("*.piece")]
        return [texts for texts in pieces if tuple(texts) != PARITY_TEXTS]

    def _allowed(self) -> float:
        try:
            return int(self._limit.read_text() or 0)
        except FileNotFoundError:
            return math.inf


class WaitingEncoder(HashingEncoder):
    """The encoder."""

    def encode_pieces(self, pieces: Iterable[Piece], kind: Kind) -> Iterator[tuple[Piece, Rows]]:
        """See ``Encoder``."""
        for piece in pieces:
            Pieces(Path(os.environ[FOLDER])).take(piece.texts)
            if any(text.startswith(GREEDY) for text in piece.texts):
                take_memory()
            if any(text.startswith(DEADLY) for text in piece.texts):
                os.kill(os.getpid(), signal.SIGKILL)
            yield from super().encode_pieces([piece], kind)


def take_memory() -> None:
    """Take memory without end, and be killed for it."""
    hoard: list[bytes] = []
    while len(hoard) * BITE_BYTES < GREED_BYTES:
        hoard.append(b"x" * BITE_BYTES)
        time.sleep(0.02)
    raise MemoryError("nobody minded")


class WaitingEngine:
    """The engine of the name ``waiting``."""

    options = HASHING.options

    def claims(self, name: str) -> bool:
        """See ``Engine``."""
        return name == NAME

    def describe(self, model: ModelSpec) -> HashingInfo:
        """See ``Engine``."""
        info = HASHING.describe(model)
        return replace(info, space=replace(info.space, model=NAME))

    def load(self, info: ModelInfo, resources: Resources) -> WaitingEncoder:
        """See ``Engine``."""
        return WaitingEncoder(info.space)


WAITING = WaitingEngine()


@contextmanager
def waiting_engine(folder: Path) -> Iterator[Pieces]:
    """The engine in this process and in those that get ``Pieces.environment``."""
    site = folder / SITE
    distribution(site, NAME, ENGINES, {NAME: "tests.waiting:WAITING"})
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(site)
        patch.setattr(engines, "KNOWN_ENGINES", unread(KNOWN_ENGINES))
        engine_of.cache_clear()
        yield Pieces(folder)
    engine_of.cache_clear()
