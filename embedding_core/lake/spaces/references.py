"""Reference vectors of a space, beside the lake: each worker's model must still give them.

The next run makes lost ones again: they guard against a broken worker, not against history.
"""

from __future__ import annotations

import logging

import numpy as np
import numpy.typing as npt

from embedding_core.lake.faults import store_faults
from embedding_core.recipe import LakeSpec
from embedding_core.store import storage
from embedding_core.store.layout import reference_path
from embedding_core.store.untrusted.npy import npy_bytes, read_npy

log = logging.getLogger(__name__)

FLOAT32 = np.dtype("<f4")


def read_reference(lake: LakeSpec, space_id: str) -> npt.NDArray[np.float32] | None:
    """(n_texts, dim) float32 as they were kept; None before the first, and, with a warning, when
    they are damaged."""
    path = reference_path(lake.uri, space_id)
    with store_faults(f"reading {path}"):
        try:
            data = storage.read_bytes(path, lake.storage)
        except FileNotFoundError:
            return None
    try:
        return read_npy(data, FLOAT32, 2)
    except ValueError as error:
        log.warning("%s is damaged (%s): it is made again", path, error)
        return None


def keep_reference(lake: LakeSpec, space_id: str, vectors: npt.NDArray[np.float32]) -> None:
    """Keep the vectors for later workers."""
    path = reference_path(lake.uri, space_id)
    with store_faults(f"writing {path}"):
        storage.write_bytes(path, npy_bytes(vectors), lake.storage)
