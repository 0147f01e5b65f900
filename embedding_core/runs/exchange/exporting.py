"""Export a version of a table: begin, write shards in any order and anywhere, finish.

    data/…                 the rows
    rejects.parquet        what was left out of the table, and why
    recipe.yaml, space.json, README.md
    manifest.json          written last
    _export/begun.json             until then: what was asked for, the table's version, a token
    _export/<token>/<shard>.json   until then: digests of a shard that is complete
    _export/<token>/*.partial      files that are being written

A run that was cut off leaves ``_export``; the next one goes on with the same version. Of exports
that replace each other at once the last to begin has the destination; see ``claim``.
"""

from __future__ import annotations

import hashlib
import time
import uuid
from dataclasses import asdict, dataclass
from typing import Any

from embedding_core.errors import SetupError, UsageError
from embedding_core.exports.destination import Destination
from embedding_core.exports.exporter import KNOWN_EXPORTERS, ShardInfo
from embedding_core.exports.manifest import (
    MANIFEST,
    SPACE,
    ExportedFile,
    Manifest,
    to_json,
)
from embedding_core.exports.spec import ExportSpec
from embedding_core.lake import ledger
from embedding_core.lake.ownership.owner import open_owned
from embedding_core.lake.snapshot import Snapshot
from embedding_core.recipe import Recipe
from embedding_core.runs.exchange.claim import (
    BEGUN,
    WORKSPACE,
    ExportJob,
    check_same,
    check_same_as_complete,
    claim_of,
    claimed_files,
    holder_of,
    open_version,
    taken_over,
)
from embedding_core.runs.exchange.companions import (
    described_space,
    entry_of,
    manifest_of,
    write_beside,
)
from embedding_core.runs.exchange.shards import (
    DATA,
    ExportPlan,
    Shard,
    export_columns,
    plan_export,
    shard_rows,
)
from embedding_core.runs.inputs.own_output import check_outside_source
from embedding_core.runs.outcome import Outcome
from embedding_core.store.untrusted.json_text import read_json


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was exported."""

    recipe: str
    table: str
    """URI of the table."""
    table_version: int
    destination: str
    to: str
    """The format."""
    space_id: str | None
    """Space of the vectors; None without vectors."""
    rows: int
    rejects: int
    shards: int
    shards_written: int
    """Shards that this run wrote; the others were complete."""
    folders: int
    """Values that the rows are split by; 0 when they are not."""
    files: int
    size_bytes: int
    manifest_sha256: str
    """Digest of the manifest, which has those of all other files."""
    seconds: float

    @property
    def outcome(self) -> Outcome:
        """An export is complete or raised an error."""
        return "done"


@dataclass(frozen=True, slots=True)
class BegunExport:
    """An export that has claimed its destination."""

    job: ExportJob
    snapshot: Snapshot
    plan: ExportPlan | Manifest
    """All shards; the manifest of an export that was complete already."""

    @property
    def dim(self) -> int:
        """Length of the vectors that are to be written; 0 without."""
        return 0 if isinstance(self.plan, Manifest) else self.plan.columns.dim

    def todo(self) -> list[Shard]:
        """Shards that are not complete yet, in order."""
        if isinstance(self.plan, Manifest):
            return []
        destination = self.job.destination
        names = destination.paths(self.job.workspace)
        sizes = destination.paths(DATA)
        return [
            shard
            for shard in self.plan.shards
            if _receipt(self.job, shard) not in names
            or any(
                sizes.get(file.path) != file.size_bytes for file in _read_receipt(self.job, shard)
            )
        ]


def export(
    recipe: Recipe,
    spec: ExportSpec,
    destination: str,
    overwrite: bool = False,
    resume: bool = False,
) -> ExportReport:
    """Export the recipe's table in this process. Errors as ``begin_export`` and ``write_shard``."""
    started = time.perf_counter()
    folder = Destination.parse(destination, recipe.lake.storage)
    begun = begin_export(recipe, spec, folder, overwrite, resume)
    todo = begun.todo()
    for shard in todo:
        write_shard(begun.job, shard, begun.snapshot)
    return finish_export(begun, len(todo), started)


def begin_export(
    recipe: Recipe,
    spec: ExportSpec,
    destination: Destination,
    overwrite: bool = False,
    resume: bool = False,
) -> BegunExport:
    """Plan an export and claim its destination.

    ``overwrite`` replaces an export that is there; ``resume`` goes on with one that was cut off,
    at the version of the table that it was begun with. Raises ``UsageError`` for a destination
    that holds anything else, or that holds an export without either; see ``plan_export``, too.
    """
    if overwrite and resume:
        raise UsageError("overwrite begins again and resume goes on; give one of them")
    check_outside_source(recipe, f"{destination.uri}/{MANIFEST}")
    begun, complete = destination.read(BEGUN), destination.read(MANIFEST)
    is_there = begun is not None or complete is not None
    if begun is None and complete is not None:  # others call a file so, too
        Manifest.from_json(complete, f"{destination.uri}/{MANIFEST}")
    if not is_there and not destination.is_empty():
        raise UsageError(
            f"{destination.uri} holds files that are no export; name a folder that is empty or "
            "does not exist yet"
        )
    if is_there and not (overwrite or resume):
        what = "an export" if begun is None else "an export that was begun"
        raise UsageError(f"{destination.uri} holds {what} already", action="overwrite")
    if resume and begun is None and complete is not None:
        return _complete(recipe, spec, destination, complete)
    if resume and begun is not None and _is_whole(begun):
        started = _resumed(recipe, spec, destination, begun)
    else:
        started = _begun(recipe, spec, destination, is_there)
    if destination.holds(MANIFEST):
        if not (overwrite or resume):  # another export was begun and completed meanwhile
            destination.delete([BEGUN])
            raise UsageError(f"{destination.uri} holds an export already", action="overwrite")
        destination.delete([MANIFEST])  # the folder is not complete from now on
    return started


def write_shard(job: ExportJob, shard: Shard, snapshot: Snapshot | None = None) -> None:
    """Write a shard, and then its receipt: with both there it is complete.

    ``snapshot`` saves opening the job's version of the table. Writing a shard again gives the same
    bytes. Raises ``SetupError`` when another export claimed the destination.
    """
    snapshot = snapshot or open_version(job)
    columns = export_columns(snapshot, job.spec)
    exporter = KNOWN_EXPORTERS.get(job.spec.to)
    info = ShardInfo(
        schema=columns.about(_about(job, snapshot, columns.vector)),
        n_rows=shard.rows,
        vector=columns.written_vector,
        dim=columns.dim,
    )
    paths = [f"{shard.stem}{suffix}" for suffix in exporter.suffixes]
    with claimed_files(job, paths) as files:
        exporter.write(shard_rows(snapshot, columns, shard, info), files, info)
    written = [
        entry_of(path, "rows", file, shard.number, shard.rows)
        for path, file in zip(paths, files, strict=True)
    ]
    job.destination.write(_receipt(job, shard), to_json([asdict(file) for file in written]))


def finish_export(begun: BegunExport, shards_written: int, started: float) -> ExportReport:
    """Write what stands beside the rows, then the manifest; remove what belongs to no export.

    ``started`` is of ``time.perf_counter``. Raises ``SetupError``, and leaves no manifest, when
    another export claimed the destination.
    """
    job, destination = begun.job, begun.job.destination
    if isinstance(begun.plan, Manifest):
        manifest = begun.plan
        if holder_of(destination) is None:
            destination.delete(destination.paths(WORKSPACE))
    else:
        if begun.todo():
            raise taken_over(job)
        files = [file for shard in begun.plan.shards for file in _read_receipt(job, shard)]
        beside = write_beside(job, begun.snapshot, begun.plan)
        manifest = manifest_of(job, begun.snapshot, begun.plan, [*files, *beside])
        written = {file.path for file in manifest.files}
        destination.delete(destination.paths(DATA).keys() - written)
        destination.delete({SPACE} & destination.paths().keys() - written)
        destination.write(MANIFEST, manifest.to_json())
        _end_claim(job, manifest)
    return ExportReport(
        recipe=job.recipe.name,
        table=begun.snapshot.table.uri,
        table_version=manifest.table_version,
        destination=destination.uri,
        to=job.spec.to,
        space_id=None if manifest.space is None else manifest.space["space_id"],
        rows=manifest.rows,
        rejects=sum(file.rows or 0 for file in manifest.files if file.kind == "rejects"),
        shards=len({file.shard for file in manifest.files} - {None}),
        shards_written=shards_written,
        folders=len(manifest.folders),
        files=len(manifest.files),
        size_bytes=sum(file.size_bytes for file in manifest.files),
        manifest_sha256=_sha256(manifest.to_json()),
        seconds=time.perf_counter() - started,
    )


def _is_whole(begun: bytes) -> bool:
    """Whether a claim was written to its end; else the export was killed in it, and wrote nothing
    else."""
    try:
        read_json(begun)
    except ValueError:
        return False
    return True


def _begun(
    recipe: Recipe, spec: ExportSpec, destination: Destination, is_there: bool
) -> BegunExport:
    """Claim the destination for the newest version of the table."""
    snapshot = open_owned(recipe)
    rejects = ledger.rejects_table(snapshot.table).open_if_made()
    rejects_version = None if rejects is None else rejects.version
    token = uuid.uuid4().hex
    job = ExportJob(recipe, spec, destination, snapshot.version, rejects_version, token)
    planned = plan_export(snapshot, spec)
    claim = to_json(claim_of(job, snapshot))
    if is_there:
        destination.write(BEGUN, claim)
        destination.delete(destination.paths(WORKSPACE).keys() - {BEGUN})
    elif not destination.create(BEGUN, claim):
        raise UsageError(
            f"{destination.uri} holds an export that was begun already", action="overwrite"
        )
    return BegunExport(job, snapshot, planned)


def _resumed(
    recipe: Recipe, spec: ExportSpec, destination: Destination, begun: bytes
) -> BegunExport:
    """Go on with an export that was cut off."""
    try:
        claim = read_json(begun)
        token = uuid.UUID(claim["token"]).hex  # a folder's name
        adopted = claim["table_version"], claim["rejects_version"], token
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SetupError(
            f"{destination.uri}/{BEGUN} is damaged ({error}), so nothing can go on there",
            action="overwrite",
        ) from error
    job = ExportJob(recipe, spec, destination, *adopted)
    snapshot = open_version(job)
    check_same(destination.uri, claim, claim_of(job, snapshot))
    return BegunExport(job, snapshot, plan_export(snapshot, spec))


def _complete(
    recipe: Recipe, spec: ExportSpec, destination: Destination, data: bytes
) -> BegunExport:
    """An export that has everything already."""
    manifest = Manifest.from_json(data, f"{destination.uri}/{MANIFEST}")
    check_same_as_complete(destination.uri, manifest, recipe, spec)
    versions = manifest.table_version, manifest.rejects_version
    job = ExportJob(recipe, spec, destination, *versions, token="")
    return BegunExport(job, open_owned(recipe), manifest)


def _about(job: ExportJob, snapshot: Snapshot, vector: str | None) -> dict[str, Any]:
    """What the rows of a shard are of."""
    return {
        "recipe": job.recipe.name,
        "table": snapshot.table.name,
        "table_version": job.table_version,
        "space": described_space(snapshot, vector),
    }


def _end_claim(job: ExportJob, manifest: Manifest) -> None:
    """Remove the claim of an export that is complete, and what it left.

    Raises ``SetupError`` when another export claimed the destination before it was complete, and
    removes the manifest again.
    """
    destination = job.destination
    if holder_of(destination) not in (job.token, None):  # None: who went on with it ended first
        if destination.read(MANIFEST) == manifest.to_json():
            destination.delete([MANIFEST])
        raise taken_over(job)
    destination.delete([BEGUN])
    destination.delete(destination.paths(WORKSPACE))


def _receipt(job: ExportJob, shard: Shard) -> str:
    return f"{job.workspace}/{shard.name}.json"


def _read_receipt(job: ExportJob, shard: Shard) -> list[ExportedFile]:
    """Files of a shard that is complete. Raises ``SetupError`` without a receipt."""
    receipt = _receipt(job, shard)
    try:
        files = read_json(job.destination.read(receipt) or "")
        return [ExportedFile(**file) for file in files]
    except (ValueError, TypeError) as error:
        raise SetupError(
            f"{job.destination.uri}/{receipt} is missing or damaged: another export was written "
            "there meanwhile",
            action="overwrite",
        ) from error


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
