"""Runs a recipe in this process: the same pipeline functions that the Prefect tasks wrap."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from embedding_core.recipe import Recipe, Resources
from embedding_core.records import Plan
from embedding_core.runs.embed.chunk_stage import chunk_unit
from embedding_core.runs.embed.commit_stage import commit_units, forget_removed, prepare
from embedding_core.runs.embed.embed_stage import embed_unit
from embedding_core.runs.embed.execution import InProcess
from embedding_core.runs.embed.finish_stage import RunReport, RunTally, finish
from embedding_core.runs.embed.planning import PlanBasis
from embedding_core.runs.embed.scheduler import chosen_plan
from embedding_core.runs.embed.units import work_units
from embedding_core.runs.job import Job

ONE_FILE_PER_UNIT = Resources(unit_bytes=1)


def recipe_for(folder: Path, **changes: Any) -> Recipe:
    """A recipe over ``folder``/src into ``folder``/lake with the hashing encoder."""
    content: dict[str, Any] = {
        "name": "test",
        "source": {"uri": str(folder / "src"), "id": "id"},
        "chunk": {"max_tokens": 32},
        "model": {"name": "hashing", "dim": 32},
        "lake": {"uri": str(folder / "lake"), "table": "docs"},
    }
    for section, values in changes.items():
        merged = isinstance(values, dict) and section in content and "strategy" not in values
        content[section] = content[section] | values if merged else values
    return Recipe.load(content)


def write_jsonl(folder: Path, name: str, texts: Mapping[str, str] | Sequence[Any]) -> Path:
    """Write ``folder``/src/``name``: one record per id and text, or the records given."""
    records = (
        [{"id": key, "text": text} for key, text in texts.items()]
        if isinstance(texts, Mapping)
        else texts
    )
    path = folder / "src" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def begin(
    recipe: Recipe,
    resources: Resources = ONE_FILE_PER_UNIT,
    allow_removals: bool = False,
    retry_reasons: Sequence[str] = (),
) -> tuple[Job, Plan]:
    """Plan a run and make the table ready."""
    basis = PlanBasis.now(recipe, retry_reasons)
    planned = basis.plan()
    job = Job.of(planned, basis.recipe, resources, uuid.uuid4().hex)
    if not planned.is_empty:
        prepare(job, planned, allow_removals)
        planned = chosen_plan(job, basis, InProcess())
    return job, planned


def run(
    recipe: Recipe,
    resources: Resources = ONE_FILE_PER_UNIT,
    allow_removals: bool = False,
    retry_reasons: Sequence[str] = (),
) -> RunReport:
    """Plan, chunk, embed, commit and finish; units in order, groups as the flow forms them."""
    started = time.perf_counter()
    job, planned = begin(recipe, resources, allow_removals, retry_reasons)
    tally = RunTally()
    if not planned.is_empty:
        units = work_units(planned, resources.bytes_per_unit)
        done = [embed_unit(job, chunk_unit(job, unit)) for unit in units]
        commit_units(job, done, planned.removed_keys)
        tally.add(done)
        forget_removed(job, planned)
    return finish(job, planned, tally, started)


def rows(recipe: Recipe, *columns: str) -> list[dict[str, Any]]:
    """The table's rows, sorted by file, document and chunk."""
    from embedding_core.lake.table import table_of

    wanted = list(columns) or ["source_uri", "doc_id", "chunk_index", "text"]
    order = ["source_uri", "doc_id", "chunk_index"]
    found = table_of(recipe).dataset().to_table(columns=list({*wanted, *order})).to_pylist()
    found.sort(key=lambda row: tuple(row[name] for name in order))
    return [{name: row[name] for name in wanted} for row in found]


def texts(recipe: Recipe) -> list[str]:
    """The table's texts in ``rows`` order."""
    return [row["text"] for row in rows(recipe, "text")]


def rejects(recipe: Recipe) -> list[dict[str, Any]]:
    """The rejects table, sorted by file and position."""
    from embedding_core.lake import ledger
    from embedding_core.lake.table import table_of

    found = ledger.reject_rows(table_of(recipe)).to_pylist()
    return sorted(found, key=lambda row: (row["source_uri"], row["position"] or 0))
