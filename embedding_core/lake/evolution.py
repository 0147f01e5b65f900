"""Changing a table's schema in one commit that reads no row: names, metadata, columns left out.

Lance knows a column by its field id, not by its name, so a renamed column keeps its data and its
index. Knows nothing of what the columns mean.
"""

from __future__ import annotations

from collections.abc import Mapping

import lance
import pyarrow as pa
from lance.schema import LanceSchema

from embedding_core.errors import LakeError
from embedding_core.lake.faults import store_faults


def commit_schema(
    dataset: lance.LanceDataset,
    wanted: pa.Schema,
    options: Mapping[str, str],
    renamed: Mapping[str, str] | None = None,
) -> int:
    """Make ``wanted`` the dataset's schema, its metadata included; the version that has it.

    ``renamed``: the old name of each column that gets a new one. Columns not in ``wanted`` go, with
    their indexes. Whatever another writer committed since ``dataset`` was opened is a conflict, and
    its commit one with this: ``Transient``, to be decided anew on the newer version.
    """
    operation = lance.LanceOperation.Project(_with_ids(dataset, wanted, renamed or {}))
    with store_faults(f"changing the schema of {dataset.uri}"):
        committed = lance.LanceDataset.commit(
            dataset.uri, operation, read_version=dataset.version, storage_options=dict(options)
        )
    return int(committed.version)


def _with_ids(
    dataset: lance.LanceDataset, wanted: pa.Schema, renamed: Mapping[str, str]
) -> LanceSchema:
    """``wanted`` with the dataset's own field ids.

    Lance numbers the fields of an Arrow schema from 0, and a table that lost a column has gaps:
    they are filled for the numbering and left out again.
    """
    known = {field.name(): field.id() for field in dataset.lance_schema.fields()}
    ids = {name: known[renamed.get(name, name)] for name in wanted.names}
    by_id = {ids[field.name]: field for field in wanted}
    filled = [by_id.get(n, pa.field(f"_{n}", pa.null())) for n in range(max(by_id) + 1)]
    numbered = LanceSchema.from_pyarrow(pa.schema(filled, metadata=wanted.metadata))
    make, (metadata, *fields) = numbered.__reduce__()
    made = make(metadata, *(fields[ids[name]] for name in wanted.names))
    if {field.name(): field.id() for field in made.fields()} != ids:
        raise LakeError(
            f"the columns of {dataset.uri} cannot be numbered as they are; it holds columns that "
            "embedlake does not make: remove them, then run the same command again"
        )
    return made
