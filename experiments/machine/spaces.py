"""The spaces of a table, as the model has them and as the table says."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from embedding_core.encoder.engines import describe_model
from embedding_core.encoder.hashing import HashingEncoder
from embedding_core.identity import space_id
from embedding_core.lake import schema
from embedding_core.lake.rows.embedded import EMBEDDED_COLUMNS, embedded_texts
from embedding_core.lake.spaces.switching import releases
from embedding_core.lake.table import table_of
from embedding_core.recipe import ModelSpec, Recipe
from experiments.faults.stage import Wrong
from experiments.faults.world import TOLERANCE

DIMS = (16, 24, 40)
"""A space each; the first is the recipe's."""


@dataclass(frozen=True, slots=True)
class Spaces:
    """Spaces by their dimensions."""

    serving: int = DIMS[0]
    hidden: frozenset[tuple[int, bool]] = frozenset()
    """Those not in service, each with whether it was."""
    history: tuple[tuple[str, int, int | None], ...] = ()
    """Changes, oldest first: what was done, the space that left or stayed, the space that came."""

    @property
    def hidden_dims(self) -> tuple[int, ...]:
        """Spaces that are not in service."""
        return tuple(sorted(dim for dim, _ in self.hidden))

    @property
    def left(self) -> tuple[int, ...]:
        """Spaces that left service."""
        return tuple(sorted(dim for dim, has_served in self.hidden if has_served))

    @property
    def before(self) -> int | None:
        """The space that a rollback puts in service; None when there is nothing to go back to."""
        promote = "promote", self.serving
        replaced = [old for action, old, new in self.history if (action, new) == promote]
        return replaced[-1] if replaced and replaced[-1] in self.hidden_dims else None

    def with_column(self, dim: int) -> Spaces:
        """After a build."""
        if dim in (self.serving, *self.hidden_dims):
            return self
        return replace(self, hidden=self.hidden | {(dim, False)})

    def without(self, dim: int) -> Spaces:
        """After a space was retired."""
        hidden = frozenset(pair for pair in self.hidden if pair[0] != dim)
        return replace(self, hidden=hidden, history=(*self.history, ("retire", dim, None)))

    def switched(self, action: str, dim: int) -> Spaces:
        """After a promote or a rollback."""
        hidden = frozenset(pair for pair in self.hidden if pair[0] != dim) | {(self.serving, True)}
        return Spaces(dim, hidden, (*self.history, (action, self.serving, dim)))

    def while_retiring(self) -> list[list[Spaces]]:
        """What there may be while spaces that left service are retired: first all, in the end none
        of them, in any order."""
        stages = [[self]]
        while fewer := [spaces.without(dim) for spaces in stages[-1] for dim in spaces.left]:
            stages.append(fewer)
        return stages


def spaces_of(recipe: Recipe) -> Spaces | None:
    """What the table says; None before there is a table."""
    snapshot = table_of(recipe).open_if_made()
    if snapshot is None:
        return None
    dims = _dims()
    return Spaces(
        serving=snapshot.space()[1].dim,
        hidden=frozenset(
            (schema.space_of(field)[1].dim, schema.Origin.of(field).served_until is not None)
            for field in snapshot.schema
            if schema.is_hidden(field)
        ),
        history=tuple(
            (release.action, dims[release.from_space], dims.get(release.to_space or ""))
            for release in reversed(releases(snapshot))
        ),
    )


def column_of(dim: int) -> str:
    """Name of the column of a space while it is not in service."""
    return schema.hidden_name(next(key for key, its_dim in _dims().items() if its_dim == dim))


def unfilled(recipe: Recipe, dims: Iterable[int]) -> dict[int, int]:
    """Rows that lack a vector of each space that is not in service, by a scan.

    Raises ``Wrong`` when a vector is not its text's.
    """
    columns = {dim: column_of(dim) for dim in dims}
    rows = table_of(recipe).to_arrow([*EMBEDDED_COLUMNS, *columns.values()])
    texts = embedded_texts(rows)
    n_unfilled = {}
    for dim, column in columns.items():
        vectors = rows.column(column)
        is_there = vectors.is_valid()
        n_unfilled[dim] = int(vectors.null_count)
        stored = np.array(vectors.drop_null().to_pylist(), np.float32).reshape(-1, dim)
        expected = encoder_of(dim).encode_documents(texts.filter(is_there).to_pylist())
        if not np.allclose(stored, expected, rtol=0, atol=TOLERANCE):
            raise Wrong(f"a vector of {column} is not its text's")
    return n_unfilled


def encoder_of(dim: int) -> HashingEncoder:
    """The encoder of a space."""
    return HashingEncoder(describe_model(ModelSpec(name="hashing", dim=dim)).space)


@cache
def _dims() -> dict[str, int]:
    """Dimension of each space, by its ``space_id``."""
    models = (ModelSpec(name="hashing", dim=dim) for dim in DIMS)
    return {space_id(describe_model(model).space): model.dim or 0 for model in models}
