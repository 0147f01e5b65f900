"""The stages put together: plan, chunk a unit, embed a unit, commit units, finish a run.

Composition only. Whoever runs these functions (a Prefect task on Ray, the command line, a test)
gets the same result; nothing here knows who that is.
"""

from __future__ import annotations

from embedding_core.pipeline.audit import AuditReport, audit, repair
from embedding_core.pipeline.backfill import (
    FilledFragment,
    SpaceReport,
    add_space,
    backfill_fragment,
    begin_space,
    build_space,
    fragments_to_fill,
    space_job,
    space_report,
)
from embedding_core.pipeline.chunk import chunk_unit
from embedding_core.pipeline.commit import commit_units, forget_removed, lost_units, prepare
from embedding_core.pipeline.drop import Belongings, drop, what_drop_removes
from embedding_core.pipeline.embed import embed_unit
from embedding_core.pipeline.estimate import sample_problems, sampled_files
from embedding_core.pipeline.evaluate import Evaluation, evaluate
from embedding_core.pipeline.finish import DONE, FAILED, REJECTED, RunReport, RunTally, finish
from embedding_core.pipeline.gate import gate
from embedding_core.pipeline.job import Job, load, locked_for, locked_for_build, resolve
from embedding_core.pipeline.judge import (
    REFUSED,
    Corpus,
    GateReport,
    JudgedSpace,
    Side,
    judge,
    side_of,
)
from embedding_core.pipeline.labels import Labels, read_labels
from embedding_core.pipeline.maintain import MaintenanceReport, maintain
from embedding_core.pipeline.plan import check_removals, is_outdated, plan
from embedding_core.pipeline.reembed import (
    Outcome,
    Promotion,
    ReembedReport,
    column_of,
    go_back,
    has_left,
    index_is_due,
    index_space,
    is_begun,
    is_in_service,
    missing_vectors,
    promote_space,
    table_uri,
)
from embedding_core.pipeline.sample import (
    SampledPart,
    SamplePart,
    choose_sample,
    embed_sample,
    forget_sample,
    judge_sample,
)
from embedding_core.pipeline.saved import finished_packs, finished_units, was_begun
from embedding_core.pipeline.search import Answer, queries_from, search
from embedding_core.pipeline.serving import following
from embedding_core.pipeline.slices import Gatherer, joined, slices_to_redo
from embedding_core.pipeline.status import (
    FileLine,
    RejectLine,
    SpaceLine,
    Status,
    file_lines,
    reject_lines,
    status,
)
from embedding_core.pipeline.units import failed_alone, halves, work_units

__all__ = [
    "DONE",
    "FAILED",
    "REFUSED",
    "REJECTED",
    "Answer",
    "AuditReport",
    "Belongings",
    "Corpus",
    "Evaluation",
    "FileLine",
    "FilledFragment",
    "GateReport",
    "Gatherer",
    "Job",
    "JudgedSpace",
    "Labels",
    "MaintenanceReport",
    "Outcome",
    "Promotion",
    "ReembedReport",
    "RejectLine",
    "RunReport",
    "RunTally",
    "SamplePart",
    "SampledPart",
    "Side",
    "SpaceLine",
    "SpaceReport",
    "Status",
    "add_space",
    "audit",
    "backfill_fragment",
    "begin_space",
    "build_space",
    "check_removals",
    "choose_sample",
    "chunk_unit",
    "column_of",
    "commit_units",
    "drop",
    "embed_sample",
    "embed_unit",
    "evaluate",
    "failed_alone",
    "file_lines",
    "finish",
    "finished_packs",
    "finished_units",
    "following",
    "forget_removed",
    "forget_sample",
    "fragments_to_fill",
    "gate",
    "go_back",
    "halves",
    "has_left",
    "index_is_due",
    "index_space",
    "is_begun",
    "is_in_service",
    "is_outdated",
    "joined",
    "judge",
    "judge_sample",
    "load",
    "locked_for",
    "locked_for_build",
    "lost_units",
    "maintain",
    "missing_vectors",
    "plan",
    "prepare",
    "promote_space",
    "queries_from",
    "read_labels",
    "reject_lines",
    "repair",
    "resolve",
    "sample_problems",
    "sampled_files",
    "search",
    "side_of",
    "slices_to_redo",
    "space_job",
    "space_report",
    "status",
    "table_uri",
    "was_begun",
    "what_drop_removes",
    "work_units",
]
