"""Train the vector index where the embed tasks run: that machine has the GPU and the memory."""

from __future__ import annotations

from embedding_core.runs.job import Job
from embedding_core.runs.space.release import index_is_due
from embedlake.execution.runner import current_runner
from embedlake.orchestration import tasks


def train_if_due(job: Job) -> None:
    """Train the index of the job's space in a separate task, with an embed task's hardware.

    Runs no task when no training is due: the flow itself extends an index and measures its recall.
    Raises what the task raised.
    """
    if index_is_due(job):
        with current_runner().with_hardware(keeps_process=False):
            future = tasks.index.submit(job)
        future.result()
