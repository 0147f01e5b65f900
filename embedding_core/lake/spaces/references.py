"""Reference vectors of a space, beside the lake: what a worker's model must still give.

Lost ones are made anew by the next run: they guard against a broken worker, not against history.
"""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt

from embedding_core.lake.faults import store_faults
from embedding_core.recipe import LakeSpec
from embedding_core.store import storage


def read_reference(lake: LakeSpec, space_id: str) -> npt.NDArray[np.float32] | None:
    """(n_texts, dim) float32 as they were kept; None before the first."""
    path = _path(lake, space_id)
    with store_faults(f"reading {path}"):
        if not storage.filesystem(path, lake.storage).exists(path):
            return None
        data = storage.read_bytes(path, lake.storage)
    vectors: npt.NDArray[np.float32] = np.load(io.BytesIO(data), allow_pickle=False)
    return vectors


def keep_reference(lake: LakeSpec, space_id: str, vectors: npt.NDArray[np.float32]) -> None:
    """Keep the vectors for later workers."""
    path = _path(lake, space_id)
    content = io.BytesIO()
    np.save(content, vectors, allow_pickle=False)
    with store_faults(f"writing {path}"):
        storage.write_bytes(path, content.getvalue(), lake.storage)


def _path(lake: LakeSpec, space_id: str) -> str:
    return storage.join(lake.uri, "_embedlake", "spaces", f"{space_id}.npy")
