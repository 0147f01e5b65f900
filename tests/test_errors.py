"""Errors say what they are and what heals them, in every process."""

from __future__ import annotations

import pickle

import pytest

from embedding_core import errors, reasons
from embedding_core.errors import EmbedlakeError, LakeError, RejectedInput, Unfilled


def _all(root: type[EmbedlakeError]) -> list[type[EmbedlakeError]]:
    return [root, *(inner for outer in root.__subclasses__() for inner in _all(outer))]


def test_every_error_of_the_tree_has_a_code() -> None:
    ours = [error for error in _all(EmbedlakeError) if error.__module__ == errors.__name__]
    codes = {error.code for error in ours}
    assert len(codes) == len(ours) == 11


def test_an_error_keeps_its_action_on_the_way_to_another_process() -> None:
    error = pickle.loads(pickle.dumps(Unfilled("3 rows lack a vector", action="reembed")))
    assert (str(error), error.action, error.code) == ("3 rows lack a vector", "reembed", "unfilled")
    assert LakeError("the table is damaged").action is None


def test_a_rejected_input_survives_the_way_to_another_process() -> None:
    error = pickle.loads(pickle.dumps(RejectedInput(reasons.TOO_DEEP, "12 objects deep")))
    assert (error.reason, error.detail) == ("too_deep", "12 objects deep")
    with pytest.raises(RejectedInput, match="too_deep: 12 objects deep"):
        raise error


def test_detail_of_a_reject_does_not_repeat_a_whole_file() -> None:
    error = RejectedInput(reasons.CORRUPT_OFFICE, "no part " + "x" * 100_000)
    assert len(error.detail) < 2_100 and error.detail.startswith("no part xxx")
