"""Where everything is that embedlake keeps beside its tables, below ``_embedlake`` in the lake.

_embedlake/probe-<hex>                     a moment, while conditional writes are tried
_embedlake/spaces/<space_id>.npy           reference vectors of a space
_embedlake/<table>/<lock|build|index>/<number>.json
_embedlake/<table>/staged/<unit_id>/…      see ``lake.staging``
_embedlake/<table>/results/…               results of Prefect's tasks
_embedlake/<table>/report.html             the page of the last report run
_embedlake/<table>/choice.parquet          chosen documents, see ``lake.rows.choices``
_embedlake/<table>/bridges/<space_id>/<space_id>.npy    from a space to another
"""

from __future__ import annotations

from typing import Literal

ROOT = "_embedlake"
LockKind = Literal["lock", "build", "index"]
CLEANED_UP = ("staged", "results")
"""Folders whose old files maintenance removes."""


def table_folder(lake_uri: str, table: str) -> str:
    return f"{lake_uri.rstrip('/')}/{ROOT}/{table}"


def lock_folder(lake_uri: str, table: str, kind: LockKind) -> str:
    return f"{table_folder(lake_uri, table)}/{kind}"


def staged_folder(lake_uri: str, table: str) -> str:
    return f"{table_folder(lake_uri, table)}/staged"


def results_folder(lake_uri: str, table: str) -> str:
    return f"{table_folder(lake_uri, table)}/results"


def choice_path(lake_uri: str, table: str) -> str:
    return f"{table_folder(lake_uri, table)}/choice.parquet"


def report_path(lake_uri: str, table: str) -> str:
    return f"{table_folder(lake_uri, table)}/report.html"


def bridges_folder(lake_uri: str, table: str) -> str:
    return f"{table_folder(lake_uri, table)}/bridges"


def reference_path(lake_uri: str, space_id: str) -> str:
    return f"{table_folder(lake_uri, 'spaces')}/{space_id}.npy"


def probe_path(lake_uri: str, name: str) -> str:
    return table_folder(lake_uri, f"probe-{name}")
