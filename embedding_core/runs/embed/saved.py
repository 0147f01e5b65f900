"""Save each part of an embed task beside the staged rows: a crash costs one part at most."""

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
    while (content := staging.read_json(table, _part_path(table, unit_id, len(parts)))) is not None:
        counters = {name: Counter(n) for name, n in content.items() if isinstance(n, dict)}
        portion = Part(**(content | counters | {"fragments": tuple(content["fragments"])}))
        if not fragments_exist(table, portion.fragments):
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
        content = _read_report(table, unit_id)
        keys = [counts["file_key"] for counts in content["counts"]] if content is not None else []
        if content is None or not files.keys() >= set(keys):
            continue
        unit = whole_files([files[key] for key in keys], planned)
        saved = _loaded(unit, content)
        if unit.unit_id == unit_id and usable_units(table, [saved]):
            packs.append(saved)
            for key in keys:
                del files[key]
    return packs


def reported_keys(table: Table) -> set[str]:
    """File keys of everything that is embedded and still staged."""
    reports = (_read_report(table, unit_id) for unit_id in staging.staged_units(table))
    return {counts["file_key"] for content in reports if content for counts in content["counts"]}


def finished_units(job: Job, units: Sequence[WorkUnit]) -> list[EmbeddedUnit]:
    """The ``units`` that an earlier run embedded and did not commit, ready to be committed."""
    table = job.table
    staged = staging.staged_units(table)
    reports = [saved_report(table, unit) for unit in units if unit.unit_id in staged]
    return usable_units(table, [report for report in reports if report is not None])


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


def saved_report(table: Table, unit: WorkUnit) -> EmbeddedUnit | None:
    """What an earlier embed task made of the unit; None when nothing was saved."""
    content = _read_report(table, unit.unit_id)
    return None if content is None else _loaded(unit, content)


def _read_report(table: Table, unit_id: str) -> dict[str, Any] | None:
    content: dict[str, Any] | None = staging.read_json(table, _report_path(table, unit_id))
    names = {field.name for field in fields(EmbeddedUnit)} - {"unit"}
    return content if content is not None and content.keys() == names else None


def _loaded(unit: WorkUnit, content: dict[str, Any]) -> EmbeddedUnit:
    lists = {name: tuple(value) for name, value in content.items() if isinstance(value, list)}
    records = {
        "unit": unit,
        "counts": tuple(FileCounts(**counts) for counts in content["counts"]),
        "file_rejects": tuple(Reject(**reject) for reject in content["file_rejects"]),
    }
    return EmbeddedUnit(**(content | lists | records))


def _part_path(table: Table, unit_id: str, number: int) -> str:
    return staging.staged_path(table, unit_id, f"part-{number:05}.json")


def _report_path(table: Table, unit_id: str) -> str:
    return staging.staged_path(table, unit_id, staging.REPORT)
