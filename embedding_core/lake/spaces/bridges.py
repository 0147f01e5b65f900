"""Bridges between a table's spaces, beside the table: matrices that turn new vectors into old ones.

A lost bridge costs another sample, nothing else.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from embedding_core.errors import LakeError
from embedding_core.lake.faults import store_faults
from embedding_core.lake.table import Table
from embedding_core.store import storage
from embedding_core.store.layout import bridges_folder
from embedding_core.store.untrusted.npy import npy_bytes, read_npy

Matrix = npt.NDArray[np.float32]
"""(dim of the space it leads from, dim of the space it leads to)"""
FLOAT32 = np.dtype("<f4")


def bridge_path(table: Table, from_space: str, to_space: str) -> str:
    """URI of the bridge between two spaces, by their ids."""
    return f"{bridges_folder(table.lake.uri, table.name)}/{from_space}/{to_space}.npy"


def keep_bridge(table: Table, from_space: str, to_space: str, matrix: Matrix) -> None:
    """Keep a bridge, in place of an earlier one between the two spaces."""
    path = bridge_path(table, from_space, to_space)
    with store_faults(f"writing {path}"):
        storage.write_bytes(path, npy_bytes(matrix), table.lake.storage)


def read_bridge(table: Table, from_space: str, to_space: str) -> Matrix | None:
    """The bridge between two spaces; None before one was kept. Raises ``LakeError`` for a file that
    holds no matrix."""
    path = bridge_path(table, from_space, to_space)
    with store_faults(f"reading {path}"):
        try:
            data = storage.read_bytes(path, table.lake.storage)
        except FileNotFoundError:
            return None
    try:
        return read_npy(data, FLOAT32, 2)
    except ValueError as error:
        raise LakeError(f"the bridge {path} is damaged ({error})", action="reembed") from error


def forget_bridges(table: Table) -> None:
    """Remove all bridges of a table."""
    folder = bridges_folder(table.lake.uri, table.name)
    fs = storage.filesystem(table.lake.uri, table.lake.storage)
    with store_faults(f"removing {folder}"):
        if fs.exists(folder):
            fs.rm(folder, recursive=True)
