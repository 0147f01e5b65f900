"""Tasks: what is tried again, and what makes two pieces of work the same."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import Any

import pytest
from prefect.states import Completed, Crashed, Failed
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
from embedding_core.records import PlannedFile, SourceFile, StagedUnit, WorkUnit
from embedding_core.store.retry import TASK_RETRIES
from embedlake.orchestration import tasks

UNIT = WorkUnit(
    unit_id="a" * 64,
    files=(PlannedFile(SourceFile("/src/a.jsonl", "1-f", 1), "k" * 64, "added", "new file"),),
)
STAGED = StagedUnit(UNIT, "/lake/staged/a/rows.arrow", (), (), {}, (), None, (), 1.0)


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


def chunk_key(unit: WorkUnit, job: Any = None) -> str:
    return tasks.chunk_key(None, {"job": job, "unit": tasks.Sealed(unit)})


def embed_key(staged: StagedUnit, job: Any = None) -> str:
    return tasks.embed_key(None, {"job": job, "staged": tasks.Sealed(staged)})


def test_cache_keys_are_the_unit_s_id_and_nothing_else() -> None:
    renamed = replace(UNIT, files=())
    assert chunk_key(UNIT, job="one run") == chunk_key(renamed, job="another run")
    elsewhere = replace(STAGED, unit=renamed, path="elsewhere", seconds=2.0)
    assert embed_key(STAGED, job="one run") == embed_key(elsewhere, job="another run")


def test_cache_keys_differ_by_unit_and_by_task() -> None:
    other = replace(UNIT, unit_id="b" * 64)
    keys = {chunk_key(UNIT), chunk_key(other), embed_key(STAGED)}
    keys.add(embed_key(replace(STAGED, unit=other)))
    assert len(keys) == 4


@pytest.mark.parametrize("task", [tasks.chunk, tasks.embed])
def test_task_keeps_its_result_and_pauses_between_tries(task: Any) -> None:
    assert task.persist_result and task.cache_key_fn is not None
    assert task.retries == TASK_RETRIES
    assert task.retry_condition_fn is tasks.is_transient
    assert task.retry_delay_seconds == [2, 4, 8] and task.retry_jitter_factor > 0


def test_sealed_value_is_handed_on_and_not_walked() -> None:
    seen: list[Any] = []
    sealed = tasks.Sealed(UNIT)
    visit_collection({"unit": sealed}, visit_fn=seen.append, return_data=False)
    assert sealed in seen and UNIT not in seen and UNIT.files[0] not in seen
    assert pickle.loads(pickle.dumps(sealed)).value == UNIT
