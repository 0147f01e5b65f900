from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from embedding_core.encoder import Encoder
from embedding_core.errors import ModelError
from tests.models import describe


def test_encode_shared_words_nearer_than_other_words() -> None:
    encoder = Encoder.load("hashing")
    query = encoder.encode_queries(["how do I catch several exceptions at once"])
    near, far = encoder.encode_documents(
        ["An except clause may name several exceptions to be caught.", "Slices copy a list."]
    )
    assert query[0] @ near > query[0] @ far + 0.2


@pytest.mark.slow
def test_encode_other_process_same_vectors() -> None:
    code = (
        "from embedding_core.encoder import Encoder;"
        "print(Encoder.load('hashing', dim=8).encode_documents(['some words'])[0].tolist())"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    here = Encoder.load("hashing", dim=8).encode_documents(["some words"])[0].tolist()
    assert out.stdout.strip() == str(here)


def test_encode_max_tokens_end_not_read_and_counted() -> None:
    encoder = Encoder.load("hashing", max_tokens=8)
    encoded = encoder.encode(
        ["one two three four five six seven eight nine", "one two three four five six seven eight"]
    )
    np.testing.assert_array_equal(encoded.vectors[0], encoded.vectors[1])
    assert (encoded.n_tokens, encoded.n_truncated) == (16, 1)


def test_encode_lone_surrogate_value_error_names_the_text() -> None:
    with pytest.raises(ValueError, match="text 1 is not valid Unicode"):
        Encoder.load("hashing").encode(["fine", "\ud800"])


def test_resolve_settings_change_the_space() -> None:
    spaces = {
        describe("hashing").space,
        describe("hashing", dim=64).space,
        describe("hashing", max_tokens=64).space,
    }
    assert {(s.dim, s.max_tokens) for s in spaces} == {(256, 8192), (64, 8192), (256, 64)}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"dtype": "fp16"}, "fp32 only"),
        ({"revision": "main"}, "remove it"),
        ({"dim": 0}, "dim"),
    ],
)
def test_resolve_impossible_setting_model_error(asked: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        describe("hashing", **asked)


def test_encode_what_is_no_string_is_named() -> None:
    with pytest.raises(ValueError, match="text 1 is a NoneType; pass strings"):
        Encoder.load("hashing").encode_documents(["words", None])  # type: ignore[list-item]
