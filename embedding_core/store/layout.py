"""Where everything is that embedlake keeps beside its tables, below ``_embedlake`` in the lake.

_embedlake/probe-<hex>                     a moment, while conditional writes are tried
_embedlake/spaces/<space_id>.npy           reference vectors of a space
_embedlake/<table>/<lock|build|index>/<number>.json
_embedlake/<table>/staged/<unit_id>/…      see ``lake.staging``
_embedlake/<table>/report.html             the page of the last report run
_embedlake/<table>/run.json, build.json    how far runs are, see ``runs.watched.run_record``
_embedlake/<table>/choice.parquet          chosen documents, see ``lake.rows.choices``
_embedlake/<table>/bridges/<space_id>/<space_id>.npy    from a space to another
"""

from __future__ import annotations

from typing import Literal

ROOT = "_embedlake"
LockKind = Literal["lock", "build", "index"]


def table_folder(lake_uri: str, table: str) -> str:
    return f"{lake_uri.rstrip('/')}/{ROOT}/{table}"


def lock_folder(lake_uri: str, table: str, kind: LockKind) -> str:
    return f"{table_folder(lake_uri, table)}/{kind}"


def staged_folder(lake_uri: str, table: str) -> str:
    return f"{table_folder(lake_uri, table)}/staged"


def choice_path(lake_uri: str, table: str) -> str:
    return f"{table_folder(lake_uri, table)}/choice.parquet"


def report_path(lake_uri: str, table: str) -> str:
    return f"{table_folder(lake_uri, table)}/report.html"


def run_path(lake_uri: str, table: str, kind: str = "run") -> str:
    return f"{table_folder(lake_uri, table)}/{kind}.json"


def bridges_folder(lake_uri: str, table: str) -> str:
    return f"{table_folder(lake_uri, table)}/bridges"


def reference_path(lake_uri: str, space_id: str) -> str:
    return f"{table_folder(lake_uri, 'spaces')}/{space_id}.npy"


def probe_path(lake_uri: str, name: str) -> str:
    return table_folder(lake_uri, f"probe-{name}")
