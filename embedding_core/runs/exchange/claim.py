"""The claim of an export on its destination: what was asked for, and of which version.

An export that replaces another writes its claim over that export's, which then stops: it looks at
the claim before each file appears.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from embedding_core.errors import LakeError, SetupError, UsageError
from embedding_core.exports.destination import Destination, DigestedFile
from embedding_core.exports.manifest import Manifest
from embedding_core.exports.spec import ExportSpec
from embedding_core.identity import digest
from embedding_core.lake.ownership.owner import open_owned
from embedding_core.lake.snapshot import Snapshot
from embedding_core.lake.table import Table
from embedding_core.recipe import Recipe
from embedding_core.store.untrusted.json_text import read_json

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
    token: str
    """A word that no other export has; whoever goes on with this one takes it over."""

    @property
    def workspace(self) -> str:
        """The folder of its receipts and of files that are not complete."""
        return f"{WORKSPACE}/{self.token}"


def holder_of(destination: Destination) -> str | None:
    """The token of the export that has claimed a destination; None where there is no claim."""
    begun = destination.read(BEGUN)
    if begun is None:
        return None
    try:
        return str(read_json(begun)["token"])
    except (ValueError, KeyError, TypeError):
        return ""  # no claim of embedlake's


def check_claim(job: ExportJob) -> None:
    """Raise ``SetupError`` when another export claimed the destination since, or completed it."""
    if holder_of(job.destination) != job.token:
        raise taken_over(job)


@contextmanager
def claimed_files(job: ExportJob, paths: Sequence[str]) -> Iterator[list[DigestedFile]]:
    """Files to be written, which appear at the end. Raises as ``check_claim`` then, and none
    appears."""
    with job.destination.new_files(paths, job.workspace) as files:
        yield files
        check_claim(job)


def taken_over(job: ExportJob) -> SetupError:
    """The error of an export that lost its destination."""
    return SetupError(
        f"another export to {job.destination.uri} was begun after this one, or has ended; this one "
        "stops, and what is there is the other's: wait for its end and export again, or name "
        "another destination"
    )


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
    values = {name: value for name, value in claim.items() if name not in ("spec", "token")}
    return values | dict(claim["spec"])


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
        "token": job.token,
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
