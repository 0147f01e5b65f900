"""What embedding rows block by block needs, whether they are new or get another model's vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Vectors = npt.NDArray[np.float32]


class FreshTexts:
    """Chooses the rows whose texts go through the model: one of each text, over all blocks."""

    def __init__(self, repeated: frozenset[str]) -> None:
        """``repeated``: hashes of texts that stand more than once among all the rows."""
        self._repeated = repeated
        self._started: set[str] = set()  # repeated texts that an earlier block encodes

    def of(self, hashes: Sequence[str], has_vector: Callable[[int], bool]) -> list[int]:
        """Positions in a block, given the hash of each of its texts and which have a vector."""
        first: dict[str, int] = {}
        for index, hashed in enumerate(hashes):
            if hashed not in self._started and not has_vector(index):
                first.setdefault(hashed, index)
        self._started.update(self._repeated.intersection(first))
        return sorted(first.values())


def vectors_in(column: pa.Array) -> Vectors:
    """(n_rows, dim) float32 of fixed-size lists; NaN for a row without a vector."""
    lists = column.storage if isinstance(column, pa.ExtensionArray) else column
    valid = lists.is_valid().to_numpy(zero_copy_only=False)
    vectors = np.full((len(lists), lists.type.list_size), np.nan, np.float32)
    values = lists.drop_null().flatten().to_numpy(zero_copy_only=False)
    vectors[valid] = values.reshape(-1, lists.type.list_size)
    return vectors
