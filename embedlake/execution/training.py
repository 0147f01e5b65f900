"""The vector index, trained where the embed tasks run: there are the GPU and the memory for it."""

from __future__ import annotations

from embedding_core.runs.job import Job
from embedding_core.runs.space.release import index_is_due
from embedlake.execution.runner import current_runner
from embedlake.orchestration import tasks


def train_if_due(job: Job) -> None:
    """Train the index of the job's space in a task of its own, with an embed task's hardware.

    When nothing is due no task runs: to extend an index and to measure its recall is left to the
    flow. Raises what the task raised.
    """
    if index_is_due(job):
        with current_runner().with_hardware(keeps_process=False):
            future = tasks.index.submit(job)
        future.result()
