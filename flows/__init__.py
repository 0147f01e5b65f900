"""Prefect and Ray, and the command line: who runs the pipeline, where, and how they say so."""

import os

# Lance warns on stderr, at every commit of a vector column, that the operation is young.
os.environ.setdefault("LANCE_LOG", "warn,lance_table::transaction::manifest_build=error")
