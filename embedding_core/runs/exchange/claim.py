"""The claim of an export on its destination: what was asked for, and of which version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from embedding_core.errors import LakeError, UsageError
from embedding_core.exports.destination import Destination
from embedding_core.exports.manifest import Manifest
from embedding_core.exports.spec import ExportSpec
from embedding_core.identity import digest
from embedding_core.lake.ownership.owner import open_owned
from embedding_core.lake.snapshot import Snapshot
from embedding_core.lake.table import Table
from embedding_core.recipe import Recipe

WORKSPACE = "_export"
"""Folder of an export that is not complete yet."""
BEGUN = f"{WORKSPACE}/begun.json"


@dataclass(frozen=True, slots=True)
class ExportJob:
    """An export of one version of a table. Small, pickles."""

    recipe: Recipe
    spec: ExportSpec
    destination: Destination
    table_version: int
    rejects_version: int | None


def check_same(uri: str, begun: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Raise ``UsageError`` when an export to ``uri`` is not the one that was begun there."""
    first, second = _flat(begun), _flat(asked)
    different = sorted(name for name in first | second if first.get(name) != second.get(name))
    if different == ["rows"]:
        raise LakeError(
            f"the table that the export at {uri} was begun of was replaced since",
            action="overwrite",
        )
    if different:
        raise UsageError(
            f"the export at {uri} was begun with another {', '.join(different)}; give "
            "the same, name another destination, or replace it with overwrite"
        )


def check_same_as_complete(uri: str, there: Manifest, recipe: Recipe, spec: ExportSpec) -> None:
    """Raise ``UsageError`` when the export that is complete at ``uri`` is of something else."""
    asked = {"recipe": recipe.name, "spec": asked_of(spec)}
    check_same(uri, {"recipe": there.recipe, "spec": dict(there.spec)}, asked)


def _flat(claim: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in claim.items() if name != "spec"} | dict(claim["spec"])


def claim_of(job: ExportJob, snapshot: Snapshot) -> dict[str, Any]:
    """What an export is, for a run that goes on with it."""
    files = [
        [file.path for file in fragment.metadata.files] + [str(fragment.metadata.deletion_file)]
        for fragment in snapshot.dataset.get_fragments()
    ]
    return {
        "recipe": job.recipe.name,
        "table": snapshot.table.uri,
        "table_version": job.table_version,
        "rejects_version": job.rejects_version,
        "spec": asked_of(job.spec),
        "rows": digest(files),
    }


def asked_of(spec: ExportSpec) -> dict[str, Any]:
    """A spec as plain values."""
    asked: dict[str, Any] = spec.model_dump(mode="json")
    return asked


def open_version(job: ExportJob) -> Snapshot:
    """The version of the table that is exported. Raises ``LakeError`` when it is gone."""
    snapshot = open_owned(job.recipe)
    return at_version(snapshot.table, job.table_version)


def at_version(table: Table, version: int) -> Snapshot:
    """A version of a table. Raises ``LakeError`` when it is gone."""
    snapshot = table.open(version)
    if snapshot.version != version:
        raise LakeError(
            f"version {version} of {table.uri}, which is being read, was removed by "
            "maintenance (maintain.keep_hours)",
            action="overwrite",
        )
    return snapshot
