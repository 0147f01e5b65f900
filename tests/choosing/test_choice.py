"""The choice among candidates: equal to plain Python's, and steady while the source grows."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding_core.errors import SetupError
from embedding_core.recipe import SampleSpec
from embedding_core.records import Document
from embedding_core.runs.choosing import candidates
from embedding_core.runs.choosing.candidates import (
    BEYOND,
    CANDIDATE,
    DUPLICATE,
    NEW,
    TAKEN,
    CandidateList,
    PackedOrdinals,
    packed,
    with_ordinals,
)
from embedding_core.runs.choosing.choice import stages
from embedding_core.runs.choosing.rules import Choosing, Identities, path_below

Row = dict[str, Any]

CHOOSINGS = [
    Choosing(True, None, None),
    Choosing(False, SampleSpec(rows=2, per="lang", seed=1), None),
    Choosing(False, SampleSpec(rows=2, per="lang", top=True), None),
    Choosing(False, None, 5),
    Choosing(True, SampleSpec(rows=2, per="lang", seed=1), 3),
    Choosing(True, SampleSpec(rows=3, top=True), None),
    Choosing(True, None, 4),
]


def rows_of(seed: int, n_rows: int) -> list[Row]:
    draw = random.Random(seed)
    return [
        {
            "identity": draw.getrandbits(64),
            "group": draw.randrange(3),
            "text": draw.randrange(1 + n_rows // 2),
            "stage": draw.choice([NEW, NEW, *range(1, 5)]),
        }
        for _ in range(n_rows)
    ]


def array_of(rows: Sequence[Row]) -> candidates.Candidates:
    content = [
        (ordinal, row["identity"], row["group"], (row["text"], 7), row["stage"])
        for ordinal, row in enumerate(rows)
    ]
    return np.array(content, CANDIDATE)


def oracle(rows: Sequence[Row], choosing: Choosing) -> list[int]:
    """What is taken, one document at a time, in plain Python: the indices."""
    left = list(range(len(rows)))
    if choosing.deduplicate:
        by_text = defaultdict(list)
        for index in left:
            by_text[rows[index]["text"]].append(index)
        left = sorted(
            min(copies, key=lambda index: (rows[index]["stage"] <= DUPLICATE, index))
            for copies in by_text.values()
        )
    if (sample := choosing.sample) is not None:
        groups = defaultdict(list)
        for index in left:
            groups[rows[index]["group"]].append(index)
        left = []
        for members in groups.values():
            rank = "identity" if sample.seed is not None else "ordinal"
            members.sort(
                key=lambda index: (
                    rows[index]["stage"] < BEYOND, {"ordinal": index, **rows[index]}[rank]
                )
            )  # fmt: skip
            left += members[: sample.rows]
        left.sort()
    if choosing.limit is not None:
        left.sort(key=lambda index: (rows[index]["stage"] != TAKEN, index))
        left = left[: choosing.limit]
    return sorted(left)


def taken(rows: Sequence[Row], choosing: Choosing) -> list[int]:
    indices: list[int] = np.flatnonzero(stages(array_of(rows), choosing) == TAKEN).tolist()
    return indices


@pytest.mark.parametrize("choosing", CHOOSINGS, ids=str)
@given(seed=st.integers(0, 10_000), n_rows=st.integers(0, 40))
def test_stages_are_those_of_plain_python(choosing: Choosing, seed: int, n_rows: int) -> None:
    rows = rows_of(seed, n_rows)
    assert taken(rows, choosing) == oracle(rows, choosing)


@pytest.mark.parametrize("choosing", CHOOSINGS, ids=str)
@given(seed=st.integers(0, 10_000), n_rows=st.integers(0, 30), n_more=st.integers(0, 30))
def test_stages_chosen_documents_stay_while_others_come(
    choosing: Choosing, seed: int, n_rows: int, n_more: int
) -> None:
    rows = [row | {"stage": NEW} for row in rows_of(seed, n_rows)]
    chosen = stages(array_of(rows), choosing)
    old = [row | {"stage": int(stage)} for row, stage in zip(rows, chosen, strict=True)]
    new = [row | {"stage": NEW} for row in rows_of(seed + 1, n_more)]
    draw, mixed = random.Random(seed), [(row, True) for row in old]
    for row in new:
        mixed.insert(draw.randrange(len(mixed) + 1), (row, False))
    after = stages(array_of([row for row, _ in mixed]), choosing)
    kept = [int(stage) for stage, (_, is_old) in zip(after, mixed, strict=True) if is_old]
    assert all(now == TAKEN for was, now in zip(chosen, kept, strict=True) if was == TAKEN)


@pytest.mark.parametrize("choosing", [one for one in CHOOSINGS if one.most_of_a_group], ids=str)
@pytest.mark.parametrize("rows_per_block", [1, 3, 1_000])
def test_candidate_list_keeps_all_that_can_be_taken_and_little_more(
    choosing: Choosing, rows_per_block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates, "ROWS_PER_BLOCK", rows_per_block)
    identities = Identities(choosing.key, "a.jsonl")
    member = identities.of("d150").to_bytes(8, "little")
    bounded = CandidateList(choosing, identities, member)
    every = CandidateList(Choosing(False, None, None), identities)
    for ordinal in range(200):
        document = Document(f"d{ordinal}", ordinal, "text", group=str(ordinal % 3))
        bounded.add(ordinal, document)
        every.add(ordinal, document)
    rows = every.all()
    rows["group"] = [candidates.group_digest(str(ordinal % 3)) for ordinal in rows["ordinal"]]
    expected = rows["ordinal"][stages(rows, choosing) == TAKEN].tolist()
    few = bounded.all()
    assert few["ordinal"][stages(few, choosing) == TAKEN].tolist() == expected
    assert 150 in few["ordinal"] and len(few) <= len(expected) + 1


def test_candidate_list_more_groups_than_can_be_says_the_number_and_the_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(candidates, "MOST_GROUPS", 3)
    choosing = Choosing(False, SampleSpec(rows=2, per="id", top=True), None)
    few = CandidateList(choosing, Identities(choosing.key, "a"))
    with pytest.raises(SetupError, match=r"field 'id' has more than 3 different values"):
        for ordinal in range(4):
            few.add(ordinal, Document(str(ordinal), ordinal, "text", group=str(ordinal)))


def test_candidate_list_more_documents_than_can_be_compared_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(candidates, "MOST_CANDIDATES", 5)
    monkeypatch.setattr(candidates, "ROWS_PER_BLOCK", 2)
    every = CandidateList(Choosing(True, None, None), Identities(b"", "a"))
    with pytest.raises(SetupError, match="6 of them would have to be compared"):
        for ordinal in range(6):
            every.add(ordinal, Document(str(ordinal), ordinal, "text"))


@given(st.sets(st.integers(0, 2**43)))
def test_packed_places_are_those_that_were_packed(ordinals: set[int]) -> None:
    looked_up = PackedOrdinals(packed(np.array(sorted(ordinals), np.int64)))
    assert all(ordinal in looked_up for ordinal in ordinals)
    assert not any(ordinal + 1 in looked_up for ordinal in ordinals if ordinal + 1 not in ordinals)
    assert -1 not in looked_up


def test_packed_places_take_little_memory() -> None:
    assert len(packed(np.arange(0, 10_000_000, 10))) < 100_000


def test_places_of_several_documents_of_a_record_differ() -> None:
    records = [Document(str(n), position, "text") for n, position in enumerate([0, 0, 1, 3, 3, 3])]
    ordinals = [ordinal for ordinal, _ in with_ordinals(records)]
    assert len(set(ordinals)) == 6 and ordinals == sorted(ordinals)


@pytest.mark.parametrize(
    ("source", "file", "path"),
    [
        ("/data", "/data/a/b.jsonl", "a/b.jsonl"),
        ("/data/", "/data/a.jsonl", "a.jsonl"),
        ("/data/a.jsonl", "/data/a.jsonl", "a.jsonl"),
        ("s3://bucket/in", "s3://bucket/in/a/b.jsonl", "a/b.jsonl"),
        ("https://host/list.txt", "https://host/a.jsonl", "https://host/a.jsonl"),
        ("hf://datasets/o/n@main", "hf://datasets/o/n/a.jsonl", "hf://datasets/o/n/a.jsonl"),
    ],
)
def test_path_below_does_not_depend_on_where_the_source_is(
    source: str, file: str, path: str
) -> None:
    assert path_below(source, file) == path


def test_identities_depend_on_the_seed_the_group_the_file_and_the_id() -> None:
    sample = SampleSpec(rows=1, seed=1)
    keys = [
        Choosing(False, one, None).key
        for one in (sample, replace_sample(sample, seed=2), replace_sample(sample, per="lang"))
    ]
    numbers = {Identities(key, path).of(doc) for key in keys for path in "ab" for doc in "xy"}
    assert len(numbers) == 12
    same = Choosing(True, replace_sample(sample, rows=9), 3)
    assert replace(same, limit=None).key == keys[0] == same.key


def replace_sample(sample: SampleSpec, **changes: Any) -> SampleSpec:
    return SampleSpec(**(sample.model_dump() | changes))
