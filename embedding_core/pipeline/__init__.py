"""The stages put together: plan, chunk a unit, embed a unit, commit units, finish a run.

Composition only. Whoever runs these functions (a Prefect task on Ray, the command line, a test)
gets the same result; nothing here knows who that is.
"""

from __future__ import annotations

from embedding_core.pipeline.chunk import chunk_unit
from embedding_core.pipeline.commit import commit_units, forget_removed, lost_units, prepare
from embedding_core.pipeline.embed import embed_unit
from embedding_core.pipeline.evaluate import Evaluation, evaluate
from embedding_core.pipeline.finish import DONE, FAILED, REJECTED, RunReport, RunTally, finish
from embedding_core.pipeline.job import Job, load, resolve
from embedding_core.pipeline.plan import plan, work_units
from embedding_core.pipeline.status import Status, status

__all__ = [
    "DONE",
    "FAILED",
    "REJECTED",
    "Evaluation",
    "Job",
    "RunReport",
    "RunTally",
    "Status",
    "chunk_unit",
    "commit_units",
    "embed_unit",
    "evaluate",
    "finish",
    "forget_removed",
    "load",
    "lost_units",
    "plan",
    "prepare",
    "resolve",
    "status",
    "work_units",
]
