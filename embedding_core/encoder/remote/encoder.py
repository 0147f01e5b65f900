"""The client of a model behind servers: cut, pack, ask, check, put in order.

Texts are counted in the background while requests are under way, sorted by length within a window,
and sent in batches of a token budget. Results come in input order, and memory is bounded by the
windows that are under way.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from embedding_core.encoder.base import Encoder, InvalidText
from embedding_core.encoder.parity import LEAST_COSINE
from embedding_core.encoder.remote.counting import fitted
from embedding_core.encoder.remote.dialects import Answered
from embedding_core.encoder.remote.endpoint_info import EndpointInfo
from embedding_core.encoder.remote.permits import Lease
from embedding_core.encoder.remote.server import RefusedRequest, Server, ServerFailed
from embedding_core.encoder.remote.traffic import Traffic
from embedding_core.encoder.stream import Piece, Rows, map_ahead
from embedding_core.errors import ModelError
from embedding_core.protocols import Kind, Tokenizer, Vectors
from embedding_core.reasons import NON_FINITE, REFUSED_BY_SERVER, ZERO_VECTOR
from embedding_core.records import ModelWork

log = logging.getLogger(__name__)

BATCH_TOKENS = 4_096
"""Tokens of a request by default: enough that its overhead does not count."""
WINDOW_BATCHES = 8
"""Requests whose texts are sorted by length together."""
PIECES_AHEAD = 2
"""Pieces of text that are counted ahead of the requests."""
LONE_TRIES = 3
"""Tries of a text over which a server that takes others fails: it may have failed by chance."""


@dataclass(frozen=True, slots=True)
class _Counted:
    """A piece, ready to be sent."""

    piece: Piece
    texts: list[str]
    """Prompt and text, cut to what the model takes."""
    n_tokens: npt.NDArray[np.int32]
    """(n_texts,) of what is sent."""
    truncated: npt.NDArray[np.bool_]
    """(n_texts,)"""


@dataclass(frozen=True, slots=True)
class _Embedded:
    """What came of the texts of a request."""

    vectors: Vectors
    """(n_texts, dim) unit norm, NaN for texts without a vector."""
    failures: dict[int, str]
    """Reasons by position."""


@dataclass(frozen=True, slots=True)
class _Window:
    """Pieces whose texts are under way together."""

    pieces: list[_Counted]
    requests: list[tuple[npt.NDArray[np.int64], Future[_Embedded]]]
    """Positions of the texts in the window, longest first, and what becomes of them."""
    dim: int

    @property
    def is_done(self) -> bool:
        """Whether every request has ended."""
        return all(future.done() for _, future in self.requests)

    def wait(self) -> None:
        """Wait for every request. Raises what one of them raised."""
        for _, future in self.requests:
            future.result()

    def rows(self) -> Iterator[tuple[Piece, Rows]]:
        """Each piece with its results."""
        n_texts = sum(len(counted.texts) for counted in self.pieces)
        vectors = np.empty((n_texts, self.dim), np.float32)
        failures: dict[int, str] = {}
        for positions, future in self.requests:
            embedded = future.result()
            vectors[positions] = embedded.vectors
            failures |= {int(positions[row]): why for row, why in embedded.failures.items()}
        start = 0
        for counted in self.pieces:
            end = start + len(counted.texts)
            yield (
                counted.piece,
                Rows(
                    vectors=vectors[start:end],
                    n_tokens=counted.n_tokens,
                    truncated=counted.truncated,
                    recomputed=np.zeros(end - start, np.bool_),
                    failures={
                        row - start: why for row, why in failures.items() if start <= row < end
                    },
                ),
            )
            start = end


class _TextLimit:
    """How many texts a request may have, by what the servers take and refuse."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._most_taken = 1
        self._lock = threading.Lock()

    def took(self, n_texts: int) -> None:
        """A request of so many was answered."""
        with self._lock:
            self._most_taken = max(self._most_taken, n_texts)

    def took_in_parts(self, n_texts: int) -> None:
        """A request of so many was refused, and its texts were taken in smaller ones. So many are
        too many, unless they were taken before: then they were too long."""
        with self._lock:
            if n_texts > self._most_taken:
                self.most = min(self.most, self._most_taken)


class EndpointEncoder(Encoder):
    """A model behind servers; may be used by several threads at once."""

    def __init__(
        self,
        info: EndpointInfo,
        servers: Sequence[Server],
        at_once: int,
        batch_tokens: int | None,
    ) -> None:
        self.space = info.space
        self.tokenizer = info.tokenizer
        self._info = info
        self._traffic = Traffic(servers, at_once)
        self._at_once = at_once
        self._batch_tokens = batch_tokens or BATCH_TOKENS
        self._limit = _TextLimit(info.most_texts)
        self._most_requests = 2 * (at_once + WINDOW_BATCHES)  # sent and waiting for their turn

    def encode_pieces(self, pieces: Iterable[Piece], kind: Kind) -> Iterator[tuple[Piece, Rows]]:
        """See ``Encoder.encode_pieces``. Requests are under way while texts are read."""
        prompt = self.space.query_prompt if kind == "query" else self.space.document_prompt
        count = partial(self._counted, self._info.tokenizer_for(prompt), prompt)
        under_way: deque[_Window] = deque()
        pool = ThreadPoolExecutor(self._at_once, thread_name_prefix="embedlake-requests")
        with self._traffic.leased() as lease:
            try:
                for window in _windows(
                    map_ahead(count, pieces, PIECES_AHEAD, 1, self._waited),
                    self._batch_tokens * WINDOW_BATCHES,
                ):
                    under_way.append(self._sent(pool, window, lease))
                    while under_way and (under_way[0].is_done or self._is_full(under_way)):
                        yield from self._rows(under_way.popleft(), lease)
                while under_way:
                    yield from self._rows(under_way.popleft(), lease)
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _rows(self, window: _Window, lease: Lease) -> Iterator[tuple[Piece, Rows]]:
        """The rows of a window. Where requests have no room for the first parity text, it is asked
        for after them."""
        window.wait()
        if not self._has_probe:
            self._probe(lease)
        yield from window.rows()

    @property
    def _has_probe(self) -> bool:
        """Whether the first parity text goes with each request."""
        return self._limit.most > 1

    def _is_full(self, under_way: Iterable[_Window]) -> bool:
        return sum(len(window.requests) for window in under_way) > self._most_requests

    def _counted(self, tokenizer: Tokenizer, prompt: str, piece: Piece) -> _Counted:
        try:
            texts, counts = fitted(tokenizer, piece.texts, self.space.max_tokens)
        except InvalidText as error:
            raise InvalidText(piece.start + error.index, error.why, piece.batch) from error
        n_tokens, limit = np.array(counts, dtype=np.int32), self.space.max_tokens
        prompted = [prompt + text for text in texts] if prompt else texts
        return _Counted(piece, prompted, np.minimum(n_tokens, limit), n_tokens > limit)

    def _sent(self, pool: ThreadPoolExecutor, pieces: list[_Counted], lease: Lease) -> _Window:
        """Queue the requests of a window, longest texts first."""
        texts = [text for counted in pieces for text in counted.texts]
        n_tokens = np.concatenate([counted.n_tokens for counted in pieces])
        order = np.argsort(-n_tokens, kind="stable")
        requests = []
        for positions in _batches(order, n_tokens, self._batch_tokens, self._most_texts):
            batch = [texts[position] for position in positions.tolist()]
            future = pool.submit(self._embedded, batch, int(n_tokens[positions].sum()), lease)
            requests.append((positions, future))
        n_requests = len(requests)
        self.work += ModelWork(n_requests, int(n_tokens.sum()), n_requests * self._batch_tokens)
        return _Window(pieces, requests, self.space.dim)

    @property
    def _most_texts(self) -> int:
        """Texts of a request, beside the first parity text."""
        return max(1, self._limit.most - 1)

    def _embedded(self, texts: Sequence[str], n_tokens: int, lease: Lease) -> _Embedded:
        """Vectors of the texts of a request; of a request that is refused, in two halves, and of
        one that has more texts than the servers were found to take."""
        if len(texts) > self._most_texts:
            return self._in_halves(texts, n_tokens, lease)
        n_sent = len(texts) + self._has_probe
        try:
            return self._asked_for(texts, n_tokens, lease)
        except (RefusedRequest, ServerFailed) as error:
            embedded = (
                self._alone(texts, error, lease)
                if len(texts) == 1
                else self._in_halves(texts, n_tokens, lease)
            )
            if isinstance(error, RefusedRequest) and not embedded.failures:
                self._limit.took_in_parts(n_sent)
            return embedded

    def _in_halves(self, texts: Sequence[str], n_tokens: int, lease: Lease) -> _Embedded:
        middle = len(texts) // 2
        first = self._embedded(texts[:middle], n_tokens // 2, lease)
        second = self._embedded(texts[middle:], n_tokens - n_tokens // 2, lease)
        return _Embedded(
            np.concatenate([first.vectors, second.vectors]),
            first.failures | {row + middle: why for row, why in second.failures.items()},
        )

    def _alone(
        self, texts: Sequence[str], error: RefusedRequest | ServerFailed, lease: Lease
    ) -> _Embedded:
        """A text that was refused alone: it has no vector, if the server takes other texts."""
        try:
            self._probe(lease)
        except RefusedRequest as other:
            raise ModelError(
                f"{other.detail}. It took this text when the task began: look at its log, and run "
                "the same command again to go on"
            ) from error
        for _ in range(LONE_TRIES if isinstance(error, ServerFailed) else 1):
            try:
                return _unit(self._answer(texts, 0, lease), self.space.dim)
            except (RefusedRequest, ServerFailed) as again:
                error = again
        log.warning("a text of %s characters has no vector: %s", f"{len(texts[0]):,}", error)
        nothing = np.full((1, self.space.dim), np.nan, np.float32)
        return _Embedded(nothing, {0: REFUSED_BY_SERVER.name})

    def _asked_for(self, texts: Sequence[str], n_tokens: int, lease: Lease) -> _Embedded:
        """Vectors of the texts. The first parity text goes with them: its vector tells when the
        server has begun to serve something else."""
        if not self._has_probe:
            return _unit(self._answer(texts, n_tokens, lease), self.space.dim)
        answer = self._answer([*texts, self._info.probe_text], n_tokens, lease)
        self._check_probe(answer[-1])
        return _unit(answer[:-1], self.space.dim)

    def _probe(self, lease: Lease) -> None:
        """Ask for the first parity text by itself."""
        self._check_probe(self._answer([self._info.probe_text], 0, lease)[0])

    def _answer(self, texts: Sequence[str], n_tokens: int, lease: Lease) -> Answered:
        answer = self._traffic.vectors(self._info.target, texts, n_tokens, lease)
        self._limit.took(len(texts))
        return answer

    def _check_probe(self, vector: Answered) -> None:
        norm = float(np.linalg.norm(vector))
        cosine = float(vector @ self._info.probe) / norm if norm else 0.0
        if not cosine >= LEAST_COSINE:
            raise ModelError(
                f"{self.space.model} gives other vectors than when the task began: cosine "
                f"{cosine:.4f} for a fixed text, at least {LEAST_COSINE} is needed. Nothing of "
                "this task is written: start the server with what it served, or embed the table "
                "again with what it serves now",
                action="reembed",
            )


def _windows(pieces: Iterable[_Counted], n_tokens: int) -> Iterator[list[_Counted]]:
    """Pieces in windows of at least ``n_tokens``; the last window has the rest."""
    window: list[_Counted] = []
    n_counted = 0
    for counted in pieces:
        window.append(counted)
        n_counted += int(counted.n_tokens.sum())
        if n_counted >= n_tokens:
            yield window
            window, n_counted = [], 0
    if window:
        yield window


def _batches(
    order: npt.NDArray[np.int64], n_tokens: npt.NDArray[np.int32], budget: int, most_texts: int
) -> Iterator[npt.NDArray[np.int64]]:
    """``order`` in runs of at most ``most_texts`` texts and ``budget`` tokens, never no text."""
    start = total = 0
    for end, position in enumerate(order.tolist()):
        total += int(n_tokens[position])
        if end > start and (total > budget or end - start >= most_texts):
            yield order[start:end]
            start, total = end, int(n_tokens[position])
    if start < len(order):
        yield order[start:]


def _unit(vectors: Answered, dim: int) -> _Embedded:
    """The first ``dim`` values at unit norm, whatever the server's; NaN for what has no
    direction."""
    wide = vectors[:, :dim].astype(np.float64)
    norms = np.linalg.norm(wide, axis=1)  # (n_texts,)
    is_finite = np.isfinite(norms)
    failures = dict.fromkeys(np.flatnonzero(~is_finite).tolist(), NON_FINITE.name)
    failures |= dict.fromkeys(np.flatnonzero(norms == 0).tolist(), ZERO_VECTOR.name)
    norms[list(failures)] = np.nan
    return _Embedded((wide / norms[:, None]).astype(np.float32), failures)
