"""Cut a plan into work units: pack small files, slice huge ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from embedding_core.errors import words
from embedding_core.identity import digest, unit_id
from embedding_core.reasons import FAILED
from embedding_core.recipe import SourceSpec
from embedding_core.records import EmbeddedUnit, Plan, PlannedFile, Reject, WorkUnit
from embedding_core.runs.embed.slices import sliced
from embedding_core.sources import slices

MOST_FILES = 4_096
"""Files of a unit, however small they are: each takes a request to the store and some memory."""


def work_units(
    planned: Plan, unit_bytes: int | None, source: SourceSpec | None = None
) -> Iterator[WorkUnit]:
    """The planned files, each exactly once, in units of about ``unit_bytes`` or ``MOST_FILES``.

    With ``source``, a huge file becomes several units, one after the other; without, it is one.
    When ``unit_bytes`` is None, every file is a unit, whatever its size.
    """
    if unit_bytes is None:
        yield from (whole_files([file], planned) for file in planned.files)
        return
    pack: list[PlannedFile] = []
    packed_bytes = 0
    for file in planned.files:
        size_bytes = file.bytes_to_read
        if pack and (packed_bytes + size_bytes > unit_bytes or len(pack) == MOST_FILES):
            yield whole_files(pack, planned)
            pack, packed_bytes = [], 0
        is_sliced = source is not None and file.is_read_whole
        spans = slices(file.file, source, unit_bytes) if source and is_sliced else ()
        if spans:
            unit = whole_files([file], planned)
            yield from (sliced(unit, span) for span in spans)
            continue
        pack.append(file)
        packed_bytes += size_bytes
    if pack:
        yield whole_files(pack, planned)


def halves(unit: WorkUnit) -> list[WorkUnit]:
    """The unit's files in two units, to find the file that it fails for; a single file stays."""
    if len(unit.files) == 1:
        return [unit]
    middle = len(unit.files) // 2
    return [
        replace(unit, unit_id=digest([unit.unit_id, half[0].file_key]), files=half)
        for half in (unit.files[:middle], unit.files[middle:])
    ]


def failed_alone(unit: WorkUnit, error: BaseException) -> EmbeddedUnit:
    """What is committed of a file, or of a slice of one, for which every attempt failed: a reject
    with the error; rows of an earlier version stay, and the next run tries again."""
    detail = f"{type(error).__name__}: {words(error)}"
    uri = unit.files[0].file.uri
    return EmbeddedUnit.rejected(unit, Reject(uri, None, None, FAILED.name, detail))


def whole_files(files: Sequence[PlannedFile], planned: Plan) -> WorkUnit:
    """A unit of whole files."""
    attempt = planned.table_version if any(file.again for file in files) else None
    keys = (file.file_key for file in files)
    return WorkUnit(unit_id(keys, planned.space_id, attempt), tuple(files))
