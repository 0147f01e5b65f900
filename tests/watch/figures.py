"""Figures of a table that has everything which can be measured."""

from __future__ import annotations

from embedding_core.lake.lock import HeldLock
from embedding_core.records import StageSeconds
from embedding_core.runs.watched.run_record import RunRecord
from embedding_core.runs.watched.table_figures import TableFigures

RUN = RunRecord(
    run_id="1",
    state="failed",
    started_at=1.0,
    updated_at=2.0,
    good_at=0.5,
    seconds=1.0,
    units=2,
    units_done=1,
    chunks={"embedded": 3},
    batch_fill=0.5,
    stages=StageSeconds(forward=1.0),
    cost=0.1,
)
FIGURES = TableFigures(
    table="articles",
    rows=3,
    rejects={"empty_text": 1},
    recall=0.97,
    recall_target=0.95,
    locks=(HeldLock("lock", "run 1", 1.0, 2.0),),
    run=RUN,
    build=RUN,
)
