"""Choose: which documents of the surveyed files are taken.

Three steps, each among the documents that the one before let pass:

1. Of documents with the same text one is kept.
2. A sample takes ``rows`` documents of each group, by chance or the first.
3. A limit takes the first documents of all.

In every step documents that had passed it the last time come first, so a chosen document stays
chosen while the source grows, and others come in for those that left. Without a last
time only the source decides: the order of files and documents is that of their paths and ordinals.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from embedding_core.records import Choice
from embedding_core.runs.choosing.candidates import (
    BEYOND,
    CANDIDATE,
    DUPLICATE,
    NOT_SAMPLED,
    TAKEN,
    Candidates,
    Ordinals,
    check_candidates,
    check_groups,
    numbers,
    packed,
    sample_order,
)
from embedding_core.runs.choosing.rules import Choosing
from embedding_core.runs.choosing.survey import FileSurvey

Stages = NDArray[np.uint8]
"""(n_candidates,) how far each comes."""


def chosen(surveys: Sequence[FileSurvey], choosing: Choosing) -> list[FileSurvey]:
    """The surveys, sorted by path, with the stage that each candidate comes to now.

    Raises ``SetupError`` for more candidates or groups than can be compared.
    """
    surveys = sorted(surveys, key=lambda survey: survey.path)
    check_candidates(sum(len(survey.candidates) for survey in surveys))
    rows = np.concatenate([np.zeros(0, CANDIDATE), *(survey.candidates for survey in surveys)])
    rows["stage"] = stages(rows, choosing)
    ends = np.cumsum([len(survey.candidates) for survey in surveys], dtype=np.int64)
    split = np.split(rows, ends[:-1]) if surveys else []
    return [replace(survey, candidates=array) for survey, array in zip(surveys, split, strict=True)]


def stages(rows: Candidates, choosing: Choosing) -> Stages:
    """How far each candidate comes; ``rows`` are in the order of files and ordinals."""
    was, now = rows["stage"], np.full(len(rows), TAKEN, np.uint8)
    if choosing.deduplicate:
        low, high = rows["text"][:, 0], rows["text"][:, 1]
        order = np.lexsort((was <= DUPLICATE, low, high))  # stable: then by file and ordinal
        begins = np.ones(len(rows), np.bool_)
        begins[1:] = (low[order][1:] != low[order][:-1]) | (high[order][1:] != high[order][:-1])
        now[order[~begins]] = DUPLICATE
    if choosing.sample is not None:
        left = np.flatnonzero(now == TAKEN)
        order = sample_order(rows[left], choosing, first=was[left] >= BEYOND)
        number = numbers(rows["group"][left][order])
        check_groups(int((number == 0).sum()), choosing)
        now[left[order[number >= choosing.sample.rows]]] = NOT_SAMPLED
    if choosing.limit is not None:
        left = np.flatnonzero(now == TAKEN)
        order = np.argsort(was[left] != TAKEN, kind="stable")
        now[left[order[choosing.limit :]]] = BEYOND
    return now


NOTHING = Choice(digest=hashlib.sha256(b"nothing").hexdigest(), chosen_ordinals=b"", is_read=False)
"""The choice of a file of which nothing is taken, and that is not read."""


def choices(surveys: Sequence[FileSurvey], choosing: Choosing) -> Iterator[Choice]:
    """The choice of each of the files that ``chosen`` gave, in order."""
    limit_is_reached = choosing.stops_early and n_taken(surveys) == choosing.limit
    last = max((number for number, survey in enumerate(surveys) if _takes(survey)), default=-1)
    for number, survey in enumerate(surveys):
        if limit_is_reached and number > last:
            yield NOTHING
        else:
            yield _choice(survey, choosing)


def n_taken(surveys: Sequence[FileSurvey]) -> int:
    """Number of documents that are taken."""
    return sum(int((survey.candidates["stage"] == TAKEN).sum()) for survey in surveys)


def _takes(survey: FileSurvey) -> bool:
    return bool((survey.candidates["stage"] == TAKEN).any())


def _choice(survey: FileSurvey, choosing: Choosing) -> Choice:
    rows, n_documents = survey.candidates, survey.documents
    end = _end(survey, choosing)
    if end is not None:
        rows = rows[rows["ordinal"] < end]
        n_documents = len(rows)
    members = rows["ordinal"][rows["stage"] == TAKEN]
    duplicates = rows["ordinal"][rows["stage"] == DUPLICATE]
    left_out = n_documents - len(members) - len(duplicates)
    is_all = not (left_out or survey.problem) and end is None
    has_rejects = bool(survey.rejects or survey.problem or len(duplicates))
    return Choice(
        digest=""
        if is_all and not len(duplicates)
        else _digest(None if is_all else members, duplicates, end),
        chosen_ordinals=None if is_all else packed(members),
        duplicate_ordinals=packed(duplicates),
        end=end,
        is_read=bool(len(members)) or has_rejects,
        chosen=len(members),
        duplicates=len(duplicates),
        left_out=left_out,
    )


def _end(survey: FileSurvey, choosing: Choosing) -> int | None:
    """The ordinal up to which a file is read that a limit cuts off."""
    stage = survey.candidates["stage"]
    if not choosing.stops_early or (survey.is_whole and not (stage == BEYOND).any()):
        return None
    members = survey.candidates["ordinal"][stage == TAKEN]
    return int(members[-1]) + 1 if len(members) else 0


def _digest(members: Ordinals | None, duplicates: Ordinals, end: int | None) -> str:
    hashed = hashlib.sha256(repr((None if members is None else len(members), end)).encode())
    for ordinals in (members, duplicates):
        hashed.update(b"" if ordinals is None else ordinals.astype("<i8").tobytes())
    return hashed.hexdigest()
