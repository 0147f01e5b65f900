"""The lake: everything Lance and LanceDB. Tables, atomic commits, indexes, search, ledger."""

from __future__ import annotations

from embedding_core.lake.commit import replace_rows, write_fragments
from embedding_core.lake.faults import tried_again
from embedding_core.lake.indexing import IndexReport, refresh_scalar_indexes, refresh_vector_index
from embedding_core.lake.search import Hit
from embedding_core.lake.table import Lake, Table, check_owner, ensure_table, table_of
from embedding_core.lake.verify import Verification, verify

__all__ = [
    "Hit",
    "IndexReport",
    "Lake",
    "Table",
    "Verification",
    "check_owner",
    "ensure_table",
    "refresh_scalar_indexes",
    "refresh_vector_index",
    "replace_rows",
    "table_of",
    "tried_again",
    "verify",
    "write_fragments",
]
