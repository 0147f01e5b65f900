"""The sample of a recipe: how many documents of a source are taken, and which."""

from __future__ import annotations

from typing import Self

from pydantic import Field, field_validator, model_validator

from embedding_core.recipe.mapping.field_path import FieldPath
from embedding_core.recipe.section import Section


class SampleSpec(Section):
    """Some documents of a source, the same ones on every machine."""

    rows: int = Field(ge=1)
    """Documents to take: of the source, or of each group that ``per`` makes."""
    per: str | None = None
    """A field or path, or a metadata column, folders included: documents with the same value are a
    group, and those without a value are a group too."""
    seed: int | None = Field(default=None, ge=0)
    """Take documents at random: the same ones for the same seed."""
    top: bool = False
    """Take the first documents instead, by file name and position."""

    @field_validator("per")
    @classmethod
    def _is_a_path(cls, path: str | None) -> str | None:
        if path is not None:
            FieldPath.parse(path)
        return path

    @model_validator(mode="after")
    def _seed_or_top(self) -> Self:
        if (self.seed is not None) == self.top:
            problem = "has both seed and top" if self.top else "says neither seed nor top"
            raise ValueError(
                f"{problem}; write seed: 1 (any number) for random documents, or top: true for the "
                "first ones"
            )
        return self
