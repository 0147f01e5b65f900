"""What the libraries of a process that embeds read from its environment, once, when they load."""

from __future__ import annotations

import os

LANCE_LOG = (
    # Lance says at every commit of a vector column that the operation is young.
    "warn,lance_table::transaction::manifest_build=error,"
    # Lance says it of every partition of an index that a small commit brings no vector for.
    "lance::index::vector::builder=error"
)
SPIN_COUNT = "1000"
"""Rounds that a worker of GNU's OpenMP waits awake for its next share before it sleeps.

The library's default is some milliseconds. Where other processes want the cores too, the workers
then burn what they wait for: three times the CPU time on two cores with two busy neighbours, and no
gain that could be measured on quiet cores (docs/lab-log.md).
"""


def process_environment() -> dict[str, str]:
    """The variables for a process that embeds; a variable that is set already stays as it is."""
    defaults = {"LANCE_LOG": LANCE_LOG, "GOMP_SPINCOUNT": SPIN_COUNT}
    return {name: os.environ.get(name, value) for name, value in defaults.items()}
