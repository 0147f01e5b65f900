"""What an embed task leaves beside the staged rows, so that a crash costs one part at most."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import pyarrow as pa

from embedding_core.lake import staging
from embedding_core.lake.rows.commit import fragments_exist
from embedding_core.lake.table import Table, table_of
from embedding_core.recipe import Recipe
from embedding_core.records import EmbeddedUnit, FileCounts, Plan, Reject, WorkUnit
from embedding_core.runs.embed.units import whole_files
from embedding_core.runs.job import Job


@dataclass(slots=True)
class Part:
    """Consecutive rows of a unit that are embedded: where they are, and their counts."""

    reject_path: str
    """URI of the staged rejects of the part."""
    rows: int = 0
    """Staged rows worked through, those without a vector included."""
    last_chunk_id: str = ""
    fragments: tuple[str, ...] = ()
    """Lance fragment metadata, JSON."""
    embedded: Counter[str] = field(default_factory=Counter)
    """Rows whose vector was computed, by file key; likewise the next two."""
    reused: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
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
        content = {one.name: getattr(self, one.name) for one in fields(self)}
        staging.save_json(table, _part_path(table, unit_id, number), content)


def saved_parts(table: Table, unit_id: str, rows: Iterator[pa.RecordBatch]) -> list[Part]:
    """Parts that an earlier attempt saved and that still fit the staged ``rows``, in order."""
    parts: list[Part] = []
    while (content := staging.read_json(table, _part_path(table, unit_id, len(parts)))) is not None:
        counters = ("embedded", "reused", "failed", "reasons")
        content |= {name: Counter(content[name]) for name in counters}
        part = Part(**content | {"fragments": tuple(content["fragments"])})
        if not fragments_exist(table, part.fragments):
            break
        parts.append(part)
    if not parts:
        return []
    place = sum(part.rows for part in parts)
    for batch in rows:
        if place <= batch.num_rows:
            fits = batch.column("chunk_id")[place - 1].as_py() == parts[-1].last_chunk_id
            return parts if fits else []
        place -= batch.num_rows
    return []


def save_report(table: Table, unit: EmbeddedUnit) -> None:
    """Keep what became of a unit until it is committed."""
    content = asdict(unit)
    del content["unit"]
    staging.save_json(table, _report_path(table, unit.unit.unit_id), content)


def was_begun(recipe: Recipe, unit: WorkUnit) -> bool:
    """Whether an earlier run staged rows of a unit and did not commit them."""
    table = table_of(recipe)
    return staging.is_staged(table, staging.staged_path(table, unit.unit_id))


def finished_packs(job: Job, planned: Plan) -> list[EmbeddedUnit]:
    """Whole files that an earlier run embedded and did not commit, in the units that they were in
    then: other files may have come or gone since, which would be packed otherwise now."""
    table = table_of(job.recipe)
    files = {one.file_key: one for one in planned.files}
    found: list[EmbeddedUnit] = []
    for unit_id in sorted(staging.staged_units(table)) if files else ():
        content = _read_report(table, unit_id)
        keys = [one["file_key"] for one in content["counts"]] if content is not None else []
        if content is None or not files.keys() >= set(keys):
            continue
        unit = whole_files([files[key] for key in keys], planned)
        saved = _embedded(unit, content)
        if unit.unit_id == unit_id and usable_units(table, [saved]):
            found.append(saved)
            for key in keys:
                del files[key]
    return found


def reported_keys(table: Table) -> set[str]:
    """File keys of everything that is embedded and still staged."""
    reports = (_read_report(table, unit_id) for unit_id in staging.staged_units(table))
    return {one["file_key"] for content in reports if content for one in content["counts"]}


def finished_units(job: Job, units: Sequence[WorkUnit]) -> list[EmbeddedUnit]:
    """Those of ``units`` that an earlier run embedded and did not commit, ready to be committed."""
    table = table_of(job.recipe)
    staged = staging.staged_units(table)
    found = [saved_report(table, unit) for unit in units if unit.unit_id in staged]
    return usable_units(table, [unit for unit in found if unit is not None])


def usable_units(table: Table, units: Sequence[EmbeddedUnit]) -> list[EmbeddedUnit]:
    """Units of which everything their report names is still there."""
    return [
        unit
        for unit in units
        if fragments_exist(table, unit.fragments)
        and all(staging.is_staged(table, path) for path in _needed(unit))
    ]


def _needed(unit: EmbeddedUnit) -> list[str]:
    return [*unit.reject_paths, *([unit.ids_path] if unit.ids_path else [])]


def saved_report(table: Table, unit: WorkUnit) -> EmbeddedUnit | None:
    """What an earlier embed task made of the unit; None when nothing was saved."""
    content = _read_report(table, unit.unit_id)
    return None if content is None else _embedded(unit, content)


def _read_report(table: Table, unit_id: str) -> dict[str, Any] | None:
    content: dict[str, Any] | None = staging.read_json(table, _report_path(table, unit_id))
    known = {one.name for one in fields(EmbeddedUnit)} - {"unit"}
    return content if content is not None and content.keys() == known else None


def _embedded(unit: WorkUnit, content: dict[str, Any]) -> EmbeddedUnit:
    return EmbeddedUnit(
        unit=unit,
        fragments=tuple(content["fragments"]),
        counts=tuple(FileCounts(**one) for one in content["counts"]),
        file_rejects=tuple(Reject(**one) for one in content["file_rejects"]),
        reasons=content["reasons"],
        reject_paths=tuple(content["reject_paths"]),
        ids_path=content["ids_path"],
        rejected_keys=tuple(content["rejected_keys"]),
        recomputed=content["recomputed"],
        seconds=content["seconds"],
    )


def _part_path(table: Table, unit_id: str, number: int) -> str:
    return staging.staged_path(table, unit_id, f"part-{number:05}.json")


def _report_path(table: Table, unit_id: str) -> str:
    return staging.staged_path(table, unit_id, staging.REPORT)
