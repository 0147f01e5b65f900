"""From a row to what the model reads of it: the one place that puts the two columns together."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from embedding_core.records import CONTEXT_END

EMBEDDED_COLUMNS = ("context", "text")
"""Columns that ``embedded_texts`` reads."""


def embedded_texts(rows: pa.RecordBatch | pa.Table) -> pa.Array | pa.ChunkedArray:
    """What the model reads of each row; ``records.embedded_text`` does the same to one text."""
    contexts, texts = (rows.column(name) for name in EMBEDDED_COLUMNS)
    if contexts.null_count == len(contexts):
        return texts
    return pc.coalesce(pc.binary_join_element_wise(contexts, texts, CONTEXT_END), texts)
