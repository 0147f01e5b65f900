"""`prompts.yaml`: prompt files at any depth, with ids that are whole numbers."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest

from embedding_core.lake.table import table_of
from tests.corpora.conftest import Trial, Try, hashing_tokens
from tests.driver import rejects, rows

HASHING_MAX_TOKENS = 8_192


def prompts(trial: Trial) -> list[tuple[str, int, dict[str, Any]]]:
    """(path, position, record) of the sample's prompt files."""
    paths = [
        path
        for path in sorted(trial.data.rglob("prompt_text.jsonl"))
        if "_drafts" not in path.parts
    ]
    return [
        (str(path.relative_to(trial.data)), position, json.loads(line))
        for path in paths
        for position, line in enumerate(path.read_text().splitlines())
    ]


@pytest.mark.slow
def test_prompts_rows_are_the_prompts_of_all_folders(trial: Try) -> None:
    made = trial("prompts")
    report = made.embed()
    expected = sorted(
        (path, record["prompt_id"], record["text"], hashing_tokens(record["text"]))
        for path, _, record in prompts(made)
        if isinstance(record["prompt_id"], int)
        and record["text"] is not None
        and hashing_tokens(record["text"]) <= HASHING_MAX_TOKENS
    )
    columns = ("source_uri", "prompt_id", "doc_id", "text", "n_tokens", "chunk_index")
    stored = rows(made.recipe, *columns)
    assert expected == sorted(
        (made.file(row), row["prompt_id"], row["text"], row["n_tokens"]) for row in stored
    )
    assert {row["doc_id"] == str(row["prompt_id"]) for row in stored} == {True}
    assert (report.outcome, report.added, report.rows) == ("done", 4, len(expected)) != (0, 0, 0)
    ids = [prompt_id for _, prompt_id, _, _ in expected]
    assert len(set(ids)) < len(ids), "two files have the same ids"
    assert 2**53 + 1 in ids


@pytest.mark.slow
def test_prompts_ids_stay_integers(trial: Try) -> None:
    made = trial("prompts")
    made.embed()
    dataset = table_of(made.recipe).dataset()
    assert dataset.schema.field("prompt_id").type == pa.int64()
    assert dataset.schema.field("doc_id").type == pa.string()
    assert dataset.count_rows(f"prompt_id = {2**53 + 1}") == 1
    assert dataset.count_rows("prompt_id = 1000") == 2


@pytest.mark.slow
def test_prompts_left_out_are_on_record(trial: Try) -> None:
    made = trial("prompts")
    report = made.embed()
    by_position = {position: record for path, position, record in prompts(made) if "run-01" in path}
    listed = [
        (made.file(row), row["position"], row["doc_id"], row["reason"], row["n_tokens"])
        for row in rejects(made.recipe)
    ]
    path = "2025-11/run-01/prompt_text.jsonl"
    assert listed == [
        (path, 7, "1007", "missing_field", None),
        (path, 30, "1030", "wrong_type", None),
        (path, 50, "1050", "over_length", 9_000),
    ]
    assert len(by_position) == 80
    assert report.rejects == {"missing_field": 1, "over_length": 1, "wrong_type": 1}
