"""Change a table's schema in one commit that reads no row: names, metadata, dropped columns.

Lance knows a column by its field id, not by its name, so a renamed column keeps its data and its
index. This module does not know what the columns mean.
"""

from __future__ import annotations

from collections.abc import Mapping

import lance
import pyarrow as pa
from lance.schema import LanceSchema

from embedding_core.errors import LakeError
from embedding_core.lake.disk.flushing import flush_version
from embedding_core.lake.faults import store_faults


def commit_schema(
    dataset: lance.LanceDataset,
    new_schema: pa.Schema,
    options: Mapping[str, str],
    renamed: Mapping[str, str] | None = None,
) -> int:
    """Make ``new_schema`` the dataset's schema, with its metadata; the version that has it.

    ``renamed``: the old name of each column that gets a new name. Columns not in ``new_schema`` are
    dropped, with their indexes. Any commit since ``dataset`` was opened is a conflict:
    ``Transient``, for the caller to decide again on the newer version.
    """
    operation = lance.LanceOperation.Project(_with_ids(dataset, new_schema, renamed or {}))
    with store_faults(f"changing the schema of {dataset.uri}"):
        committed = lance.LanceDataset.commit(
            dataset.uri, operation, read_version=dataset.version, storage_options=dict(options)
        )
    flush_version(committed)
    return int(committed.version)


def _with_ids(
    dataset: lance.LanceDataset, new_schema: pa.Schema, renamed: Mapping[str, str]
) -> LanceSchema:
    """``new_schema`` with the dataset's field ids.

    Lance numbers the fields of an Arrow schema from 0, and a table that lost a column has gaps:
    they are filled for the numbering and left out again.
    """
    old_ids = {field.name(): field.id() for field in dataset.lance_schema.fields()}
    ids = {name: old_ids[renamed.get(name, name)] for name in new_schema.names}
    by_id = {ids[field.name]: field for field in new_schema}
    filled = [by_id.get(n, pa.field(f"_{n}", pa.null())) for n in range(max(by_id) + 1)]
    numbered = LanceSchema.from_pyarrow(pa.schema(filled, metadata=new_schema.metadata))
    make, (metadata, *fields) = numbered.__reduce__()
    with_ids = make(metadata, *(fields[ids[name]] for name in new_schema.names))
    if {field.name(): field.id() for field in with_ids.fields()} != ids:
        raise LakeError(
            f"the columns of {dataset.uri} cannot be numbered as they are; it holds columns that "
            "embedlake does not make: remove them, then run the same command again"
        )
    return with_ids
