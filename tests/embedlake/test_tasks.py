"""Tasks: what is tried again, and what makes two pieces of work the same."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed, Crashed, Failed
from prefect.tasks import Task
from prefect.utilities.collections import visit_collection

from embedding_core import reasons
from embedding_core.errors import (
    LakeError,
    ModelError,
    RejectedInput,
    SetupError,
    Transient,
    UsageError,
)
from embedding_core.records import PlannedFile, SourceFile, WorkUnit
from embedding_core.store.retry import TASK_RETRIES
from embedlake.orchestration import tasks

UNIT = WorkUnit(
    unit_id="a" * 64,
    files=(PlannedFile(SourceFile("/src/a.jsonl", "1-f", 1), "k" * 64, "added", "new file"),),
)
TASKS = [value for value in vars(tasks).values() if isinstance(value, Task)]


class StoreBusy(Transient):
    """A transient error of a kind that tasks.py has never heard of."""


@pytest.mark.parametrize("error", [Transient("store hiccup"), StoreBusy("words"), Transient("")])
def test_transient_error_is_tried_again(error: Exception) -> None:
    assert tasks.is_transient(tasks.chunk, None, Failed(data=error))


@pytest.mark.parametrize(
    "error",
    [
        SetupError("Transient: try again"),
        UsageError("timeout"),
        ModelError("connection reset"),
        LakeError("503 slow down"),
        RejectedInput(reasons.FAILED, "retry"),
        OSError("temporary failure"),
        ValueError("Transient"),
    ],
)
def test_other_error_is_not_tried_again_whatever_its_words(error: Exception) -> None:
    assert not tasks.is_transient(tasks.chunk, None, Failed(data=error))


def test_crashed_task_is_not_mistaken_for_a_transient_one() -> None:
    assert not tasks.is_transient(tasks.chunk, None, Crashed(data=RuntimeError("killed")))
    assert not tasks.is_transient(tasks.chunk, None, Completed(data="fine"))


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_task_keeps_no_result_and_pauses_between_tries(task: Task[Any, Any]) -> None:
    assert task.persist_result is False and task.cache_policy == NO_CACHE
    assert task.retries == TASK_RETRIES
    assert task.retry_condition_fn is tasks.is_transient
    assert task.retry_delay_seconds == [2, 4, 8] and task.retry_jitter_factor > 0


def test_sealed_value_is_handed_on_and_not_walked() -> None:
    seen: list[Any] = []
    sealed = tasks.Sealed(UNIT)
    visit_collection({"unit": sealed}, visit_fn=seen.append, return_data=False)
    assert sealed in seen and UNIT not in seen and UNIT.files[0] not in seen
    assert pickle.loads(pickle.dumps(sealed)).value == UNIT
