"""Engines of somebody's own package: one object and one entry point."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from embedding_core.encoder import Encoder, describe_model, engines, load_model
from embedding_core.encoder.engines import KNOWN_ENGINES, engine_of
from embedding_core.errors import ModelError
from embedding_core.recipe import ModelSpec, Resources
from embedding_core.registry import ENGINES
from tests.models import describe
from tests.plugins import install, unread

MODULE = """
from dataclasses import replace

from embedding_core.encoder.hashing import HASHING, HashingInfo


class Shouting:
    options = frozenset({"dim"})

    def claims(self, name):
        return name.startswith("shouting:")

    def describe(self, model):
        space = HASHING.describe(model).space
        return HashingInfo(replace(space, model=model.name))

    def load(self, info, resources):
        return HASHING.load(info, resources)


SHOUTING = Shouting()


class Bare:
    def __init__(self, space):
        self.space = space


class BareEngine(Shouting):
    def claims(self, name):
        return name == "bare:"

    def load(self, info, resources):
        return Bare(info.space)


BARE = BareEngine()
"""


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A distribution with two engines that work and one that does not."""
    points = {
        "shouting": "shouting_plugin:SHOUTING",
        "bare": "shouting_plugin:BARE",
        "broken": "no_such_module:ENGINE",
    }
    install(monkeypatch, tmp_path, "shouting", MODULE, ENGINES, points)
    monkeypatch.setattr(engines, "KNOWN_ENGINES", unread(KNOWN_ENGINES))
    engine_of.cache_clear()
    yield
    engine_of.cache_clear()


@pytest.mark.usefixtures("plugins")
def test_engine_of_a_plugin_describes_and_loads_its_models(tiny_qwen3: Path) -> None:
    model = ModelSpec(name="shouting:loud", dim=16)
    info = describe_model(model)
    assert (info.space.model, info.space.dim) == ("shouting:loud", 16)
    vectors = load_model(info, model, Resources()).encode_documents(["some words"])
    expected = Encoder.load("hashing", dim=16).encode_documents(["some words"])
    np.testing.assert_array_equal(vectors, expected)
    np.testing.assert_array_equal(
        Encoder.load("shouting:loud", dim=16).encode_documents(["some words"]), expected
    )
    assert describe(str(tiny_qwen3)).space.dim == 64  # the others stay as they are


@pytest.mark.usefixtures("plugins")
def test_engine_of_a_plugin_its_options_are_refused_by_the_core() -> None:
    with pytest.raises(ModelError, match=r"max_tokens 64 means nothing for the model 'shouting:a'"):
        describe("shouting:a", max_tokens=64)


@pytest.mark.usefixtures("plugins")
def test_engine_whose_encoder_is_no_encoder_is_named() -> None:
    with pytest.raises(ModelError, match=r"of 'bare:' gives a Bare, which is no Encoder"):
        Encoder.load("bare:")


@pytest.mark.usefixtures("plugins")
def test_broken_engine_leaves_the_others_alone() -> None:
    assert {"shouting", "bare"} <= engines.KNOWN_ENGINES.working().keys()
    [problem] = engines.KNOWN_ENGINES.problems()
    assert "'broken' (embedlake.engines) of the package shouting cannot be imported" in problem
    assert describe("hashing").space.dim == 256


def test_name_that_no_engine_claims_says_which_names_there_are() -> None:
    assert engine_of("nobody:knows") is KNOWN_ENGINES.get("checkpoint")
    with pytest.raises(ModelError, match="cannot tell what model 'nobody:knows' is; use a hub id"):
        describe("nobody:knows")
