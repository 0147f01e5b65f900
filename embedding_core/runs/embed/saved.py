"""Save each part of an embed task beside the staged rows: a crash costs one part at most.

Whoever may write to the lake may have changed what was saved. So it is validated when it is read,
and names files of its unit alone; what is not as it was written is done again.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from typing import Any

import pyarrow as pa
from pydantic import TypeAdapter, ValidationError

from embedding_core.lake import staging
from embedding_core.lake.rows.commit import fragments_exist
from embedding_core.lake.table import Table, table_of
from embedding_core.recipe import Recipe
from embedding_core.records import EmbeddedUnit, FileCounts, Plan, WorkUnit
from embedding_core.runs.embed.units import whole_files
from embedding_core.runs.job import Job

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Part:
    """Consecutive rows of a unit that are embedded: their fragments and counts."""

    reject_path: str
    """URI of the staged rejects of the part."""
    rows: int = 0
    """Staged rows that the part covers, rows without a vector included."""
    last_chunk_id: str = ""
    fragments: tuple[str, ...] = ()
    """Lance fragment metadata, JSON."""
    embedded: Counter[str] = field(default_factory=Counter)
    """Rows whose vector was computed, by file key."""
    reused: Counter[str] = field(default_factory=Counter)
    """Rows that got a vector that the table or the unit has, by file key."""
    failed: Counter[str] = field(default_factory=Counter)
    """Rows without a vector, by file key."""
    reasons: Counter[str] = field(default_factory=Counter)
    """Rejects by reason."""
    recomputed: int = 0

    @classmethod
    def begun(cls, table: Table, unit_id: str, number: int) -> Part:
        """A part without rows."""
        name = f"rejects-{number:05}.arrow"
        return cls(reject_path=staging.staged_path(table, unit_id, name))

    def save(self, table: Table, unit_id: str, number: int) -> None:
        """Keep it for a later attempt."""
        # Not ``asdict``: it makes of a Counter the counts of its pairs.
        content = {field.name: getattr(self, field.name) for field in fields(self)}
        staging.save_json(table, _part_path(table, unit_id, number), content)


def saved_parts(table: Table, unit_id: str, rows: Iterator[pa.RecordBatch]) -> list[Part]:
    """Parts that an earlier attempt saved and that still fit the staged ``rows``, in order."""
    parts: list[Part] = []
    while (portion := _saved_part(table, unit_id, len(parts))) is not None:
        if not fragments_exist(table, portion.fragments):
            break
        if portion.failed and not staging.has_rejects(table, portion.reject_path):
            break
        parts.append(portion)
    if not parts:
        return []
    position = sum(portion.rows for portion in parts)
    for batch in rows:
        if position <= batch.num_rows:
            fits = batch.column("chunk_id")[position - 1].as_py() == parts[-1].last_chunk_id
            return parts if fits else []
        position -= batch.num_rows
    return []


def _saved_part(table: Table, unit_id: str, number: int) -> Part | None:
    path = _part_path(table, unit_id, number)
    content = staging.read_json(table, path)
    if content is None:
        return None
    portion: Part | None = _validated(_validator(Part), content, path)
    return portion if portion and staging.is_of_unit(table, unit_id, portion.reject_path) else None


def save_report(table: Table, unit: EmbeddedUnit) -> None:
    """Keep what became of a unit until it is committed."""
    content = asdict(unit)
    del content["unit"]  # the next run makes its units itself
    staging.save_json(table, _report_path(table, unit.unit.unit_id), content)


def was_begun(recipe: Recipe, unit: WorkUnit) -> bool:
    """Whether an earlier run staged rows of a unit and did not commit them."""
    table = table_of(recipe)
    return staging.is_staged(table, staging.staged_path(table, unit.unit_id))


def finished_packs(job: Job, planned: Plan) -> list[EmbeddedUnit]:
    """Units of whole files that an earlier run embedded and did not commit, as they were packed
    then. The same files may be packed another way now, if files came or went since."""
    table = job.table
    files = {file.file_key: file for file in planned.files}
    packs: list[EmbeddedUnit] = []
    for unit_id in sorted(staging.staged_units(table)) if files else ():
        keys = _reported_keys(table, unit_id)
        if not keys or not files.keys() >= set(keys):
            continue
        unit = whole_files([files[key] for key in keys], planned)
        saved = saved_report(table, unit) if unit.unit_id == unit_id else None
        if saved is not None and intact_units(table, [saved]):
            packs.append(saved)
            for key in keys:
                del files[key]
    return packs


def finished_units(job: Job, units: Sequence[WorkUnit]) -> list[EmbeddedUnit]:
    """The ``units`` that an earlier run embedded and did not commit, ready to be committed."""
    table = job.table
    staged = staging.staged_units(table)
    reports = [saved_report(table, unit) for unit in units if unit.unit_id in staged]
    return intact_units(table, [report for report in reports if report is not None])


def usable_units(table: Table, units: Sequence[EmbeddedUnit]) -> list[EmbeddedUnit]:
    """Units of which everything their report names is still there."""
    return [
        unit
        for unit in units
        if fragments_exist(table, unit.fragments)
        and all(
            staging.is_staged(table, path) for path in (*unit.reject_paths, unit.ids_path) if path
        )
    ]


def intact_units(table: Table, units: Sequence[EmbeddedUnit]) -> list[EmbeddedUnit]:
    """Usable units whose staged rejects can be read: an earlier run wrote them, and a disk may have
    damaged them since."""
    return [
        unit
        for unit in usable_units(table, units)
        if all(staging.has_rejects(table, path) for path in unit.reject_paths)
    ]


def saved_report(table: Table, unit: WorkUnit) -> EmbeddedUnit | None:
    """What an earlier embed task made of the unit; None when nothing was saved that holds."""
    path = _report_path(table, unit.unit_id)
    content = staging.read_json(table, path)
    if not _is_report(content):
        return None
    saved: EmbeddedUnit | None = _validated(
        _validator(EmbeddedUnit), content | {"unit": unit}, path
    )
    if saved is None:
        return None
    paths = [path for path in (*saved.reject_paths, saved.ids_path) if path is not None]
    holds = [counts.file_key for counts in saved.counts] == [file.file_key for file in unit.files]
    holds = holds and all(staging.is_of_unit(table, unit.unit_id, path) for path in paths)
    return saved if holds else None


def _reported_keys(table: Table, unit_id: str) -> list[str]:
    """Keys of the files that a unit's report is of; none without one that holds."""
    path = _report_path(table, unit_id)
    content = staging.read_json(table, path)
    if not _is_report(content):
        return []
    counts = _validated(_validator(tuple[FileCounts, ...]), content["counts"], path)
    return [] if counts is None else [counted.file_key for counted in counts]


def _is_report(content: Any) -> bool:
    """Whether a record has the fields of a report, whatever they hold."""
    names = {field.name for field in fields(EmbeddedUnit)} - {"unit"}
    return isinstance(content, dict) and content.keys() == names


@cache
def _validator(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _validated(validator: TypeAdapter[Any], content: Any, path: str) -> Any:
    """The content as its type; None, with a warning, for what is not of it."""
    try:
        return validator.validate_python(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        log.warning(
            "%s is not what was written (%s: %s): its work is done again",
            path, ".".join(map(str, first["loc"])), first["msg"],
        )  # fmt: skip
        return None


def _part_path(table: Table, unit_id: str, number: int) -> str:
    return staging.staged_path(table, unit_id, f"part-{number:05}.json")


def _report_path(table: Table, unit_id: str) -> str:
    return staging.staged_path(table, unit_id, staging.REPORT)
