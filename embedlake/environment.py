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

PREFECT_PATIENCE = {"PREFECT_CLIENT_RETRY_EXTRA_CODES": "500"}
"""A Prefect server whose database is away answers 500, which Prefect's client takes for final: a
run would end over a Postgres that is started again. With this the client asks again for a minute,
as it does after 503."""


WATCHING = ("EMBEDLAKE_LOG_FORMAT", "EMBEDLAKE_TRACES", "OTEL_")
"""Beginnings of variables that say how a process is watched; nodes of a cluster get them too."""
PREFECT_JSON = {"PREFECT_LOGGING_HANDLERS_CONSOLE_FORMATTER": "json"}
"""JSON for what Prefect says before a flow or a task of ours begins, and for its worker."""
SECRET = "HEADERS"
"""In the name of a variable of OpenTelemetry that may hold a token: Ray would show it."""


def process_environment() -> dict[str, str]:
    """The variables for a process that embeds; a variable that is set already stays as it is."""
    defaults = {"LANCE_LOG": LANCE_LOG, "GOMP_SPINCOUNT": SPIN_COUNT, **PREFECT_PATIENCE}
    watching = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(WATCHING) and SECRET not in name
    }
    if os.environ.get("EMBEDLAKE_LOG_FORMAT") == "json":
        defaults |= PREFECT_JSON
    return {name: os.environ.get(name, value) for name, value in defaults.items()} | watching
