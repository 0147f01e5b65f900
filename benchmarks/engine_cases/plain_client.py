"""A server's own best client: threads that post fixed batches, as every example does.

Tries a few numbers of threads and sizes of batches on some of the texts, and keeps the fastest.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product

import httpx2
import numpy as np

THREADS = (1, 2, 4, 8, 16)
BATCHES = (8, 32, 128)
"""Texts of a request."""


@dataclass(frozen=True, slots=True)
class PlainClient:
    """Posts to ``/v1/embeddings``."""

    url: str
    model: str
    n_threads: int
    n_texts: int

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """(n_texts, dim) in the order of the texts."""
        starts = range(0, len(texts), self.n_texts)
        with httpx2.Client(base_url=self.url, timeout=600) as client:

            def post(start: int) -> np.ndarray:
                batch = list(texts[start : start + self.n_texts])
                body = {"model": self.model, "input": batch, "encoding_format": "base64"}
                answer = client.post("/v1/embeddings", json=body)
                answer.raise_for_status()
                rows = sorted(answer.json()["data"], key=lambda row: row["index"])
                values = [np.frombuffer(base64.b64decode(row["embedding"]), "<f4") for row in rows]
                return np.stack(values)

            with ThreadPoolExecutor(self.n_threads) as pool:
                return np.concatenate(list(pool.map(post, starts)))


def best_client(url: str, model: str, texts: Sequence[str]) -> PlainClient:
    """The fastest of all on these texts."""
    clients = [PlainClient(url, model, *sizes) for sizes in product(THREADS, BATCHES)]
    return min(clients, key=lambda client: _seconds(client, texts))


def _seconds(client: PlainClient, texts: Sequence[str]) -> float:
    started = time.perf_counter()
    client.encode(texts)
    return time.perf_counter() - started
