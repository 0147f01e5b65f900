"""Prefect and Ray, and the command line: who runs the pipeline, where, and how they say so."""

import os

# Lance warns on stderr, at every commit of a vector column, that the operation is young, and of
# every partition of an index that a small commit brings no vector for.
QUIET = "lance_table::transaction::manifest_build=error,lance::index::vector::builder=error"
os.environ.setdefault("LANCE_LOG", f"warn,{QUIET}")
