"""Look for damage in a recipe's table, and repair it."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from embedding_core.lake import ledger, staging
from embedding_core.lake.faults import tried_again
from embedding_core.lake.index.refresh import IndexPlan, refresh_indexes
from embedding_core.lake.ownership.owner import open_owned
from embedding_core.lake.readers.feedback import feedback_table
from embedding_core.lake.table import Table, table_of
from embedding_core.lake.upkeep.manifests import put_damaged_aside
from embedding_core.lake.upkeep.row_audit import Damage
from embedding_core.lake.upkeep.table_audit import Audit, take_out
from embedding_core.lake.upkeep.table_audit import audit as audit_table
from embedding_core.recipe import Recipe, Resources
from embedding_core.runs.job import load_described, locked_for
from embedding_core.runs.outcome import Outcome
from embedding_core.runs.serving import serving_model

SAMPLE_ROWS = 1_000
"""Rows whose vectors are made again by a deep look: seconds with a small model on a CPU."""


@dataclass(frozen=True, slots=True)
class AuditReport(Audit):
    """The damage in a table, and what was done about it."""

    recipe: str
    repaired: bool
    """Whether all that a run can make again was taken out, and the indexes made again."""
    seconds: float

    @property
    def outcome(self) -> Outcome:
        """``failed`` when something is damaged and stays so, else ``done``."""
        stays = self.final if self.repaired else self.damages
        return "failed" if stays else "done"

    @property
    def final(self) -> tuple[Damage, ...]:
        """Damages that neither a repair nor a run can mend."""
        return tuple(damage for damage in self.damages if damage.is_final)


def audit(
    recipe: Recipe, resources: Resources, deep: bool = False, sample_rows: int = SAMPLE_ROWS
) -> AuditReport:
    """Look for damage in the recipe's table, its ledger, its rejects and its feedback; changes
    nothing.

    ``deep`` reads every row, and makes the vectors of about ``sample_rows`` of them again with the
    model in service. Raises ``LakeError`` when there is no table, or when its manifest is damaged.
    """
    started = time.perf_counter()
    return _report(recipe, _looked(recipe, resources, deep, sample_rows), False, started)


def repair(
    recipe: Recipe,
    resources: Resources,
    deep: bool = False,
    sample_rows: int = SAMPLE_ROWS,
    wait_seconds: float = 60.0,
) -> AuditReport:
    """``audit``, and take damaged rows out of the table: the next run makes them again.

    A manifest that does not parse is put aside first. Rows of damaged files go, so that a run finds
    them missing, and so does staged work; indexes are made again. Raises ``Locked`` when a run goes
    on for longer than ``wait_seconds``.
    """
    started = time.perf_counter()
    with locked_for(recipe, "repair", wait_seconds) as lock:
        aside = [damage for table in _tables(recipe) for damage in put_damaged_aside(table)]
        audited = _looked(recipe, resources, deep, sample_rows)
        audited = replace(audited, damages=(*aside, *audited.damages))
        if audited.damages:
            lock.check()
            table = open_owned(recipe).table
            take_out(table, audited.damages)
            # A run that was cut off would commit the same files again.
            staging.drop_staged(table, staging.staged_units(table))
            tried_again(
                f"index {table.uri}",
                lambda _attempt: refresh_indexes(table.open(), IndexPlan.of(recipe)),
            )
    return _report(recipe, audited, bool(audited.damages), started)


def _tables(recipe: Recipe) -> tuple[Table, ...]:
    """The recipe's table and those beside it."""
    table = table_of(recipe)
    return table, ledger.ledger_table(table), ledger.rejects_table(table), feedback_table(table)


def _looked(recipe: Recipe, resources: Resources, deep: bool, sample_rows: int) -> Audit:
    snapshot = open_owned(recipe)
    if not deep or not sample_rows:
        return audit_table(snapshot, deep)
    serving = serving_model(recipe, snapshot)
    encoder = load_described(serving.info, serving.model, resources)

    def encode(texts: Collection[str]) -> NDArray[np.float32]:
        return encoder.encode_documents(list(texts))

    return audit_table(snapshot, deep, encode, sample_rows)


def _report(recipe: Recipe, audited: Audit, repaired: bool, started: float) -> AuditReport:
    seen = {field.name: getattr(audited, field.name) for field in fields(Audit)}
    seconds = time.perf_counter() - started
    return AuditReport(**seen, recipe=recipe.name, repaired=repaired, seconds=seconds)
