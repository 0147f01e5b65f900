"""Reference vectors of a space, beside the lake: each worker's model must still give them.

The next run makes lost ones again: they guard against a broken worker, not against history.
"""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt

from embedding_core.lake.faults import store_faults
from embedding_core.recipe import LakeSpec
from embedding_core.store import storage
from embedding_core.store.layout import reference_path


def read_reference(lake: LakeSpec, space_id: str) -> npt.NDArray[np.float32] | None:
    """(n_texts, dim) float32 as they were kept; None before the first."""
    path = reference_path(lake.uri, space_id)
    with store_faults(f"reading {path}"):
        try:
            data = storage.read_bytes(path, lake.storage)
        except FileNotFoundError:
            return None
    vectors: npt.NDArray[np.float32] = np.load(io.BytesIO(data), allow_pickle=False)
    return vectors


def keep_reference(lake: LakeSpec, space_id: str, vectors: npt.NDArray[np.float32]) -> None:
    """Keep the vectors for later workers."""
    path = reference_path(lake.uri, space_id)
    content = io.BytesIO()
    np.save(content, vectors, allow_pickle=False)
    with store_faults(f"writing {path}"):
        storage.write_bytes(path, content.getvalue(), lake.storage)
