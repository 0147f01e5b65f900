"""Texts are cut by the tokenizer that the table was made with, whatever model serves now.

Chunk boundaries belong to the rows. If they moved with every new model, a promote would make the
next run cut and embed every file again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from embedding_core.chunking import Chunker, Tokenizer, chunker_for, settled
from embedding_core.encoder.engines import ModelInfo, describe_model
from embedding_core.encoder.remote.counting import counter_of
from embedding_core.errors import ModelError
from embedding_core.identity import SHOWN_DIGITS, row_rules
from embedding_core.lake import schema
from embedding_core.lake.snapshot import Snapshot
from embedding_core.recipe import ChunkOptions, ModelSpec, Recipe


@dataclass(frozen=True, slots=True)
class Cutting:
    """The chunk section with its lengths filled in, and the tokenizer to count with."""

    spec: ChunkOptions
    tokenizer: Tokenizer
    digest: str
    """Digest of the tokenizer, as in a space."""
    limit: int
    """Longest chunk that the model of the tokenizer takes, special tokens included."""
    prompt: str
    """Document prompt of that model, which counts as part of every chunk."""
    model: ModelSpec
    """The model that the tokenizer belongs to."""

    def chunker(self) -> Chunker:
        """The chunker of this cutting."""
        return chunker_for(self.spec, self.tokenizer, self.limit)

    def stored(self) -> schema.Cutter:
        """What the table remembers of the cutting."""
        model = self.model.model_dump(mode="json")
        return schema.Cutter(model, self.digest, self.limit, self.prompt)


def cutting_of(recipe: Recipe, info: ModelInfo, snapshot: Snapshot | None) -> Cutting:
    """How the recipe's texts are cut; ``info`` describes its model, ``snapshot`` is its table.

    ``chunk.tokenizer`` decides, else the table, else the model. Raises ``ModelError`` when the
    tokenizer that the table was cut with is not where it was, ``UsageError`` for lengths that do
    not fit.
    """
    if recipe.chunk.tokenizer is not None:
        model = ModelSpec(name=recipe.chunk.tokenizer)
        return _of_model(recipe, model, describe_model(model))
    stored = snapshot.cutter() if snapshot is not None and snapshot.n_rows else None
    if stored is None:
        return _of_model(recipe, recipe.model, info)
    model = ModelSpec(**stored.model)
    counter: _Counter = _Described(info)
    if stored.tokenizer != info.space.tokenizer:  # else the usual fine-tune
        counter = _counter_of_table(recipe, model, stored)
    return _cutting(recipe, model, counter, stored.max_tokens, stored.prompt)


def _of_model(recipe: Recipe, model: ModelSpec, info: ModelInfo) -> Cutting:
    space = info.space
    return _cutting(recipe, model, _Described(info), space.max_tokens, space.document_prompt)


class _Counter(Protocol):
    """What counts tokens, of a model that is here or of one behind a server."""

    @property
    def digest(self) -> str: ...

    def tokenizer_for(self, prompt: str) -> Tokenizer: ...


@dataclass(frozen=True, slots=True)
class _Described:
    """The tokenizer of a model that was described."""

    info: ModelInfo

    @property
    def digest(self) -> str:
        return self.info.space.tokenizer

    def tokenizer_for(self, prompt: str) -> Tokenizer:
        return self.info.tokenizer_for(prompt)


def _cutting(
    recipe: Recipe, model: ModelSpec, counter: _Counter, limit: int, prompt: str
) -> Cutting:
    return Cutting(
        spec=settled(recipe.chunk, limit),
        tokenizer=counter.tokenizer_for(prompt),
        digest=counter.digest,
        limit=limit,
        prompt=prompt,
        model=model,
    )


def _counter_of_table(recipe: Recipe, model: ModelSpec, stored: schema.Cutter) -> _Counter:
    """What cut the table's rows. A server is not asked where a checkpoint counts for it."""
    way_out = (
        "name a model with the same tokenizer as chunk.tokenizer; any other cuts each file again"
    )
    where = f"the rows of table {recipe.lake.table!r} were cut with the tokenizer of {model.name}"
    try:
        counter: _Counter = (
            _Described(describe_model(model)) if model.tokenizer is None else counter_of(model)
        )
    except ModelError as error:
        raise ModelError(f"{where}, which cannot be loaded: {error}; {way_out}") from error
    if counter.digest != stored.tokenizer:
        raise ModelError(
            f"{where}, which has another tokenizer now (was {stored.tokenizer[:SHOWN_DIGITS]}, is "
            f"{counter.digest[:SHOWN_DIGITS]}); {way_out}"
        )
    return counter


def rules_of(recipe: Recipe, cutting: Cutting) -> dict[str, Any]:
    """What decides the rows of the recipe."""
    return row_rules(recipe, cutting.spec, cutting.digest, cutting.limit, cutting.prompt)
