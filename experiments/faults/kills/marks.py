"""What a child is doing, in memory that its parent still reads when the child is dead; and an
encoder that is slow on purpose, so that a kill can fall amid its work."""

from __future__ import annotations

import mmap
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from embedding_core.encoder.engines import ModelInfo
from embedding_core.encoder.hashing import HashingEncoder, HashingEngine
from embedding_core.encoder.parity import PARITY_TEXTS
from embedding_core.encoder.stream import Piece, Rows
from embedding_core.protocols import Kind
from embedding_core.recipe import Resources
from embedding_core.watch.spans import Attribute, trace_with

ENCODING = "encode"
"""The stage that the slow encoder marks; the others are the spans of a run."""
FILLING = frozenset({"chunk", "embed", ENCODING, "backfill"})
"""Stages in which rows and vectors are made and written."""
COUNT = struct.Struct("q")
LONGEST_STAGE = 32


class Marks:
    """The stage that a child is in, and how many texts its encoder was given."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, COUNT.size + LONGEST_STAGE)  # shared with forked children

    @property
    def stage(self) -> str:
        """The innermost stage; empty outside of any."""
        return self._memory[COUNT.size :].rstrip(b"\0").decode()

    @stage.setter
    def stage(self, name: str) -> None:
        self._memory[COUNT.size :] = name.encode().ljust(LONGEST_STAGE, b"\0")

    @property
    def n_texts(self) -> int:
        """Texts of rows that went to the encoder."""
        return int(COUNT.unpack_from(self._memory)[0])

    @n_texts.setter
    def n_texts(self, count: int) -> None:
        COUNT.pack_into(self._memory, 0, count)

    def clear(self) -> None:
        """Begin again."""
        self.stage, self.n_texts = "", 0

    @contextmanager
    def span(
        self, name: str, _parent: str = "", _attributes: Mapping[str, Attribute] | None = None
    ) -> Iterator[None]:
        """Be in a stage for as long as the context lasts; see ``watch.spans.Tracer``."""
        outer, self.stage = self.stage, name
        try:
            yield
        finally:
            self.stage = outer

    def current(self) -> str:
        """See ``watch.spans.Tracer``."""
        return ""

    def watched(self, action: Callable[[], Any], seconds_per_text: float) -> Callable[[], Any]:
        """The action with its stages marked and its texts counted, for a child to do."""

        def load(_engine: HashingEngine, info: ModelInfo, _resources: Resources) -> SlowEncoder:
            return SlowEncoder(info, self, seconds_per_text)

        def act() -> Any:
            trace_with(self)
            with patch.object(HashingEngine, "load", load):
                return action()

        return act


class SlowEncoder(HashingEncoder):
    """Gives the vectors of ``HashingEncoder``, of which it is a child, in its own time."""

    def __init__(self, info: ModelInfo, marks: Marks, seconds_per_text: float) -> None:
        super().__init__(info.space)
        self._marks, self._seconds_per_text = marks, seconds_per_text

    def encode_pieces(self, pieces: Iterable[Piece], kind: Kind) -> Iterator[tuple[Piece, Rows]]:
        """See ``HashingEncoder``."""
        return super().encode_pieces(map(self._waited_for, pieces), kind)

    def _waited_for(self, piece: Piece) -> Piece:
        if tuple(piece.texts) != PARITY_TEXTS:  # which tell whether the model is the same
            with self._marks.span(ENCODING):
                self._marks.n_texts += len(piece.texts)
                time.sleep(self._seconds_per_text * len(piece.texts))
        return piece
