"""Engines: each turns a model section into a space, a tokenizer and a loaded encoder.

Every room comes to a model by two calls: ``describe_model`` finds it and loads nothing,
``load_model`` makes it ready to run. An engine is one object in one file and one line of
``KNOWN_ENGINES``, or an entry point of somebody's own package.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Hashable
from functools import lru_cache
from typing import Literal, Protocol, TypedDict, Unpack

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from embedding_core.errors import ModelError
from embedding_core.protocols import TextEncoder, Tokenizer
from embedding_core.recipe import ModelSpec, Resources
from embedding_core.records import Space
from embedding_core.registry import ENGINES, Registry
from embedding_core.store.storage import StorageSpec

NOT_FOR_ENGINES = frozenset({"name", "over_length"})
"""Fields of ``ModelSpec`` that are no option of an engine: the name chooses it, and chunking reads
``over_length``."""


class ModelOptions(TypedDict, total=False):
    """Fields of ``ModelSpec`` beside the name, as Python's keyword arguments."""

    revision: str | None
    adapter: str | None
    adapter_revision: str | None
    storage: StorageSpec
    dtype: str
    dim: int | None
    max_tokens: int | None
    allow_unverified: bool
    api: Literal["openai", "tei"] | None
    served: str | None
    endpoints: tuple[str, ...]
    tokenizer: str | None
    query_prompt: str | None
    document_prompt: str | None


class ModelInfo(Hashable, Protocol):
    """A model that is described and not loaded; pickles small."""

    @property
    def space(self) -> Space: ...

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer; it is read at first use, then the same object in this process."""
        ...

    def tokenizer_for(self, document_prompt: str) -> Tokenizer:
        """The tokenizer, counting documents with another prompt than the model's own."""
        ...


class Engine(Protocol):
    """One way to run models: a checkpoint here, servers elsewhere, the hashing encoder."""

    options: frozenset[str]
    """Fields of ``ModelSpec`` that the engine honours beside ``name``; others are refused."""

    def claims(self, name: str) -> bool:
        """Whether ``model.name`` is one of its models, by the form of the name alone."""
        ...

    def describe(self, model: ModelSpec) -> ModelInfo:
        """Find the model. Loads nothing; raises ``ModelError`` or ``Transient``."""
        ...

    def load(self, info: ModelInfo, resources: Resources) -> TextEncoder:
        """Make the model ready to run; ``info`` is what ``describe`` gave."""
        ...


KNOWN_ENGINES = Registry[Engine](
    ENGINES,
    {
        "hashing": "embedding_core.encoder.hashing:HASHING",
        "checkpoint": "embedding_core.encoder.local.engine:CHECKPOINT",
        "endpoint": "embedding_core.encoder.remote.endpoints:ENDPOINT",
    },
    Engine,
)


@lru_cache(maxsize=64)
def engine_of(name: str) -> Engine:
    """The engine that claims a name; the checkpoint engine, which says why, when none does."""
    for engine in KNOWN_ENGINES.working().values():
        if engine.claims(name):
            return engine
    return KNOWN_ENGINES.get("checkpoint")


def describe_model(model: ModelSpec) -> ModelInfo:
    """Find a model and describe it: its space and its tokenizer. Loads nothing.

    Raises ``ModelError`` for a model that cannot be found, is not trusted, or cannot do what is
    asked, ``Transient`` when a bucket does not answer.
    """
    engine = engine_of(model.name)
    _refuse_options(model, engine.options)
    return engine.describe(model)


def load_model(info: ModelInfo, model: ModelSpec, resources: Resources) -> TextEncoder:
    """Make a model ready to run; ``info`` describes ``model``."""
    return engine_of(model.name).load(info, resources)


def model_spec(name: str, **options: Unpack[ModelOptions]) -> ModelSpec:
    """A model section from Python's arguments. Raises ``ModelError`` for a value it cannot have."""
    if unknown := options.keys() - ModelOptions.__annotations__.keys():
        raise TypeError(
            f"no model option {min(unknown)!r}; use {', '.join(ModelOptions.__annotations__)}"
        )
    try:
        return ModelSpec(name=name, **options)  # type: ignore[arg-type] # pydantic checks dtype
    except ValidationError as error:
        raise wrong_values(error) from error


def wrong_values(error: ValidationError) -> ModelError:
    """The error for options that have values of another kind or out of bounds."""
    return ModelError(
        "; ".join(
            f"{'.'.join(map(str, problem['loc']))}{_wrong(problem)}" for problem in error.errors()
        )
    )


def _wrong(problem: ErrorDetails) -> str:
    """What is wrong with a value. Our own messages name it, unless it holds a secret."""
    if problem["type"] == "value_error":
        return f": {problem['ctx']['error']}"
    return f" is {problem['input']!r}: {problem['msg']}"


def free_memory() -> None:
    """Give the memory of encoders that nothing refers to back to their GPU."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def _refuse_options(model: ModelSpec, honoured: frozenset[str]) -> None:
    """Raise ``ModelError`` for an option that the model's engine would ignore."""
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if name in honoured | NOT_FOR_ENGINES or value == field.default:
            continue
        raise ModelError(f"{name} {value!r} means nothing for the model {model.name!r}; remove it")
