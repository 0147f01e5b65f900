"""Put huge files together again: all slices of a file are committed as one unit, or no slice is.

Nothing of the split is left in the table: positions and ids are those of the whole file, and of
several records with one id the first in the file wins, whatever slice it is in.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import add

import numpy as np
from numpy.typing import NDArray

from embedding_core.errors import LakeError, RejectedInput
from embedding_core.identity import ID_DIGEST_BYTES, digest, id_digest
from embedding_core.lake import staging
from embedding_core.lake.table import Table
from embedding_core.reasons import FAILED, LENGTH_REFUSED
from embedding_core.records import Document, EmbeddedUnit, Reject, Slice, WorkUnit
from embedding_core.runs.job import Job
from embedding_core.sources import check_unchanged
from embedding_core.store.storage import StorageSpec
from embedding_core.store.untrusted.npy import npy_bytes, read_npy

ID = np.dtype(f"V{ID_DIGEST_BYTES}")


@dataclass(slots=True)
class UsedIds:
    """The ids that a slice gave out, to be compared with those of the others."""

    digests: list[bytes] = field(default_factory=list)

    def add(self, document: Document) -> None:
        """Note a document's id."""
        self.digests.append(id_digest(document.doc_id))

    def save(self, table: Table, path: str) -> None:
        """Keep them beside the staged rows: 16 bytes a document."""
        staging.save_bytes(table, path, npy_bytes(np.array(self.digests, ID)))


class Gatherer:
    """Collects the embedded slices of files until a file has all of them."""

    def __init__(self) -> None:
        self._slices: dict[str, dict[int, EmbeddedUnit]] = defaultdict(dict)

    def add(self, unit: EmbeddedUnit) -> list[EmbeddedUnit]:
        """Take a unit. Gives a unit of whole files at once, and all slices of a file, in order,
        when the last has come; else nothing."""
        slice_ = unit.unit.slice
        if slice_ is None:
            return [unit]
        key = unit.unit.files[0].file_key
        self._slices[key][slice_.number] = unit
        if len(self._slices[key]) < slice_.count:
            return []
        slices = self._slices.pop(key)
        return [slices[number] for number in sorted(slices)]


def slices_to_redo(job: Job, slices: Sequence[EmbeddedUnit]) -> list[WorkUnit]:
    """Units for slices with records whose id a record of an earlier slice has; usually none. A
    slice refused for the length of a chunk is among them: the chunk may be of such a record.

    Memory: 16 bytes per document of the file, and only where the recipe names an id field.
    """
    if not slices or any(result.ids_path is None or _is_lost(result) for result in slices):
        return []
    table = job.table
    ids = [_read_ids(table, result.ids_path) for result in slices if result.ids_path is not None]
    digests = np.concatenate(ids)
    order = np.argsort(digests.view(f"S{ID_DIGEST_BYTES}"), kind="stable")
    repeats = np.zeros(len(digests), np.bool_)
    repeats[order[1:]] = digests[order][1:] == digests[order][:-1]
    redo, start = [], 0
    for unit, unit_ids in zip(slices, ids, strict=True):
        repeated = unit_ids[repeats[start : start + len(unit_ids)]]
        start += len(unit_ids)
        if len(repeated):
            redo.append(_without(unit.unit, [digest.tobytes().hex() for digest in repeated]))
    return redo


def _is_lost(result: EmbeddedUnit) -> bool:
    """Whether a slice was rejected, whichever of its records are left out."""
    return any(reject.reason != LENGTH_REFUSED.name for reject in result.file_rejects)


def _without(unit: WorkUnit, used_ids: list[str]) -> WorkUnit:
    if unit.slice is None:
        return unit
    fewer = replace(unit.slice, used_ids=(*unit.slice.used_ids, *used_ids))
    return replace(sliced(unit, fewer), pieces=unit.staged_ids)


def sliced(unit: WorkUnit, slice_: Slice) -> WorkUnit:
    """The unit with only a slice of its file."""
    identity = [slice_.number, slice_.span.start, slice_.span.end, *slice_.used_ids]
    return replace(unit, unit_id=digest([unit.unit_id, identity]), slice=slice_)


def joined(slices: Sequence[EmbeddedUnit], storage: StorageSpec) -> EmbeddedUnit:
    """Join the slices of a file, in order, as if it had never been cut.

    ``storage`` says how the file's place is reached.
    The file is rejected when it changed while it was read, or when a slice was rejected as a whole.
    When a slice only failed, staged files of the other slices stay for the next run.
    """
    first = slices[0]
    planned = first.unit.files[0]
    ids = tuple(staged for result in slices for staged in result.unit.staged_ids)
    joined_unit = replace(
        first,
        unit=WorkUnit(digest(ids), first.unit.files, pieces=ids),
        fragments=tuple(fragment for result in slices for fragment in result.fragments),
        counts=(reduce(add, (unit.counts[0] for unit in slices)),),
        reasons=dict(sum((Counter(result.reasons) for result in slices), Counter())),
        reject_paths=tuple(path for result in slices for path in result.reject_paths),
        recomputed=sum(result.recomputed for result in slices),
        stages=reduce(add, (result.stages for result in slices)),
        model=reduce(add, (result.model for result in slices)),
    )
    rejects = [reject for result in slices for reject in result.file_rejects]
    try:
        check_unchanged(planned.file, storage)
    except RejectedInput as error:
        rejects = [Reject(planned.file.uri, None, None, error.reason, error.detail)]
    if not rejects:
        return joined_unit
    failed = rejects[0].reason == FAILED.name
    unit = replace(joined_unit.unit, pieces=()) if failed else joined_unit.unit
    return replace(
        EmbeddedUnit.rejected(unit, rejects[0]),
        reject_paths=joined_unit.reject_paths,
        recomputed=joined_unit.recomputed,
        stages=joined_unit.stages,
        model=joined_unit.model,
    )


def _read_ids(table: Table, path: str) -> NDArray[np.void]:
    """The ids of a slice. Raises ``LakeError`` for a file that is not what the slice wrote."""
    try:
        return read_npy(staging.load_bytes(table, path), ID, 1)
    except ValueError as error:
        raise LakeError(
            f"{path} is damaged ({error}); remove it, and the next run makes it again",
            action="embed",
        ) from error
