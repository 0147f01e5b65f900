"""The lake: everything Lance and LanceDB. Tables, atomic commits, indexes, search, ledger."""

from __future__ import annotations

from embedding_core.lake.adoption import NO_CHANGES, ColumnChanges, column_changes, has_no_rows
from embedding_core.lake.audit import Audit, audit, take_out
from embedding_core.lake.audit_rows import Damage
from embedding_core.lake.columns import (
    VectorColumn,
    add_column,
    columns,
    expect,
    field_of,
    missing_rows,
    model_of,
)
from embedding_core.lake.commit import (
    check_in_service,
    fragments_exist,
    replace_rows,
    write_fragments,
)
from embedding_core.lake.drop import belongings, drop_table
from embedding_core.lake.faults import tried_again
from embedding_core.lake.filling import KNOWN, Filled, PlacedVectors, fill_fragment, fragment_rows
from embedding_core.lake.foreign import check_all_ours
from embedding_core.lake.hits import Hit, Hits
from embedding_core.lake.index_check import (
    broken_indexes,
    check_index_sizes,
    drop_broken_indexes,
)
from embedding_core.lake.indexing import refresh_scalar_indexes
from embedding_core.lake.lock import Lock, locked
from embedding_core.lake.maintenance import (
    TableReport,
    maintain_table,
    must_wait,
    small_fragments,
)
from embedding_core.lake.orphans import remove_orphans
from embedding_core.lake.owner import check_owner, check_recipe, ensure_table
from embedding_core.lake.releases import (
    Release,
    column_before,
    promote,
    releases,
    retire,
    retire_left,
    rollback,
)
from embedding_core.lake.reuse import KnownVectors, OldRows, known_vectors
from embedding_core.lake.search import Query
from embedding_core.lake.table import Lake, Table, table_of
from embedding_core.lake.vector_index import (
    IndexReport,
    refresh_vector_index,
    training_is_due,
)
from embedding_core.lake.verify import Verification, verify

__all__ = [
    "KNOWN",
    "NO_CHANGES",
    "Audit",
    "ColumnChanges",
    "Damage",
    "Filled",
    "Hit",
    "Hits",
    "IndexReport",
    "KnownVectors",
    "Lake",
    "Lock",
    "OldRows",
    "PlacedVectors",
    "Query",
    "Release",
    "Table",
    "TableReport",
    "VectorColumn",
    "Verification",
    "add_column",
    "audit",
    "belongings",
    "broken_indexes",
    "check_all_ours",
    "check_in_service",
    "check_index_sizes",
    "check_owner",
    "check_recipe",
    "column_before",
    "column_changes",
    "columns",
    "drop_broken_indexes",
    "drop_table",
    "ensure_table",
    "expect",
    "field_of",
    "fill_fragment",
    "fragment_rows",
    "fragments_exist",
    "has_no_rows",
    "known_vectors",
    "locked",
    "maintain_table",
    "missing_rows",
    "model_of",
    "must_wait",
    "promote",
    "refresh_scalar_indexes",
    "refresh_vector_index",
    "releases",
    "remove_orphans",
    "replace_rows",
    "retire",
    "retire_left",
    "rollback",
    "small_fragments",
    "table_of",
    "take_out",
    "training_is_due",
    "tried_again",
    "verify",
    "write_fragments",
]
