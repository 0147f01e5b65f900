"""Huge files put together again: all slices of a file are committed as one unit, or none is.

Nothing of the split is left in the table: positions and ids are those of the whole file, and of
several records with one id the first in the file wins, whatever slice it is in.
"""

from __future__ import annotations

import io
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import add

import numpy as np
from numpy.typing import NDArray

from embedding_core.errors import RejectedInput
from embedding_core.identity import ID_DIGEST_BYTES, digest, id_digest
from embedding_core.lake import staging
from embedding_core.lake.table import Table, table_of
from embedding_core.reasons import FAILED
from embedding_core.records import Document, EmbeddedUnit, Reject, Slice, WorkUnit
from embedding_core.runs.job import Job
from embedding_core.sources import check_unchanged

ID = np.dtype([("digest", f"V{ID_DIGEST_BYTES}"), ("position", "<i8")])


@dataclass(slots=True)
class UsedIds:
    """The ids that a slice gave out, to be compared with those of the others."""

    rows: list[tuple[bytes, int]] = field(default_factory=list)

    def add(self, document: Document) -> None:
        """Note a document's id."""
        self.rows.append((id_digest(document.doc_id), document.position))

    def save(self, table: Table, path: str) -> None:
        """Keep them beside the staged rows: 24 bytes a document."""
        content = io.BytesIO()
        np.save(content, np.array(self.rows, ID), allow_pickle=False)
        staging.save_bytes(table, path, content.getvalue())


class Gatherer:
    """Collects the embedded slices of files until a file has all of them."""

    def __init__(self) -> None:
        self._slices: dict[str, dict[int, EmbeddedUnit]] = defaultdict(dict)

    def add(self, unit: EmbeddedUnit) -> list[EmbeddedUnit]:
        """Take a slice; all slices of its file in order once the last is there, else nothing."""
        part = unit.unit.slice
        if part is None:
            return [unit]
        key = unit.unit.files[0].file_key
        self._slices[key][part.number] = unit
        if len(self._slices[key]) < part.count:
            return []
        found = self._slices.pop(key)
        return [found[number] for number in sorted(found)]


def slices_to_redo(job: Job, slices: Sequence[EmbeddedUnit]) -> list[WorkUnit]:
    """Units for slices with records whose id a record of an earlier slice has; usually none.

    Memory: 24 bytes per document of the file, and only where the recipe names an id field.
    """
    if not slices or any(one.ids_path is None or one.rejected_keys for one in slices):
        return []
    table = table_of(job.recipe)
    ids = [_read_ids(table, one.ids_path) for one in slices if one.ids_path is not None]
    digests = np.concatenate([one["digest"] for one in ids])
    order = np.argsort(digests.view(f"S{ID_DIGEST_BYTES}"), kind="stable")
    again = np.zeros(len(digests), np.bool_)
    again[order[1:]] = digests[order][1:] == digests[order][:-1]
    redo, start = [], 0
    for unit, own in zip(slices, ids, strict=True):
        positions = own["position"][again[start : start + len(own)]]
        start += len(own)
        if len(positions):
            redo.append(_without(unit.unit, positions.tolist()))
    return redo


def _without(unit: WorkUnit, positions: list[int]) -> WorkUnit:
    if unit.slice is None:
        return unit
    part = replace(unit.slice, duplicates=(*unit.slice.duplicates, *positions))
    return replace(sliced(unit, part), pieces=_staged_ids(unit))


def sliced(unit: WorkUnit, part: Slice) -> WorkUnit:
    """One slice of what the unit is."""
    place = [part.number, part.span.start, part.span.end, *part.duplicates]
    own = digest([unit.unit_id, place])
    return replace(unit, unit_id=own, slice=part)


def _staged_ids(unit: WorkUnit) -> tuple[str, ...]:
    return (unit.unit_id, *unit.pieces)


def joined(slices: Sequence[EmbeddedUnit]) -> EmbeddedUnit:
    """One file of its slices, in order, as if it had never been cut.

    A file that changed while it was read, or of which a slice was rejected as a whole, is rejected;
    where a slice only failed, what is staged of the others stays for the next run.
    """
    first = slices[0]
    planned = first.unit.files[0]
    ids = tuple(staged for one in slices for staged in _staged_ids(one.unit))
    whole = replace(
        first,
        unit=WorkUnit(digest(ids), first.unit.files, pieces=ids),
        fragments=tuple(fragment for one in slices for fragment in one.fragments),
        counts=(reduce(add, (unit.counts[0] for unit in slices)),),
        reasons=dict(sum((Counter(one.reasons) for one in slices), Counter())),
        reject_paths=tuple(path for one in slices for path in one.reject_paths),
        recomputed=sum(one.recomputed for one in slices),
        seconds=sum(one.seconds for one in slices),
    )
    rejects = [reject for one in slices for reject in one.file_rejects]
    try:
        check_unchanged(planned.file)
    except RejectedInput as error:
        rejects = [Reject(planned.file.uri, None, None, error.reason, error.detail)]
    if not rejects:
        return whole
    failed = rejects[0].reason == FAILED.name
    unit = replace(whole.unit, pieces=()) if failed else whole.unit
    return replace(
        EmbeddedUnit.rejected(unit, rejects[0]),
        reject_paths=whole.reject_paths,
        recomputed=whole.recomputed,
        seconds=whole.seconds,
    )


def _read_ids(table: Table, path: str) -> NDArray[np.void]:
    content = io.BytesIO(staging.load_bytes(table, path))
    ids: NDArray[np.void] = np.load(content, allow_pickle=False)
    return ids
